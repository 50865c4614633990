"""What goes wrong in a simulation: at a step, or at a time; at random, or aimed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

import msgspec

from shared.model.states import JobState, TaskState
from tests.simulation import ports
from tests.simulation.slips import SLIP

BUSY_FOR: Final = 30.0
"""Virtual seconds in which jobs come and faults happen."""

SETTLED_AFTER: Final = 1.0
"""Virtual seconds until users come; the times of faults count from then."""

TROUBLE_FROM: Final = 2.0
TROUBLE_TO: Final = BUSY_FOR - 5
"""The virtual seconds between which faults by time begin."""


_LONG: Final = ("store away", "all workers cut")
"""Faults that may last for longer than any lease."""


class Fault(msgspec.Struct, frozen=True):
    """Something that goes wrong: at the `nth` step of this label, or, where that is 0, at a virtual second."""

    what: str
    label: str = ""
    nth: int = 0
    at: float = 0.0
    seconds: float = 0.0
    whom: int = 0


OF_ONE: Final = (
    "kill coordinator",
    "freeze coordinator",
    "cut coordinator",
    "stop coordinator",
    "deprive coordinator",
    "kill worker",
    "restart worker",
    "lose worker",
    "stop worker",
    "freeze worker",
    "cut worker",
    "hush worker",
)
"""`deprive`: it alone has no store. `lose`: no successor comes to its place. `stop`: as by SIGTERM. `hush`: its beats
are lost."""

OF_ALL: Final = (
    "store away",
    "broker away",
    "broker emptied",
    "queue deleted",
    "all coordinators gone",
    "all workers cut",
    "containers gone",
    "receiver hangs",
    "clock jumps",
    "queue held",
)
TIMED_FAULTS: Final = OF_ONE + OF_ALL
AIMED_ONLY: Final = ("engine hangs",)
"""Faults by time that no seed draws: they are aimed at each state, so that seeds go on meaning what they meant."""

STATES: Final = (*(f"task {each}" for each in TaskState), *(f"job {each}" for each in JobState))

AT_STEPS: Final = frozenset(
    {ports.CRASH_BEFORE, ports.CRASH_AFTER, ports.FAIL_BEFORE, ports.FAIL_AFTER, ports.STALL_CRASH}
)
OF_COORDINATORS: Final = AT_STEPS | {
    *(what for what in OF_ONE if what.endswith("coordinator")),
    "store away",
    "broker away",
    "broker emptied",
    "all coordinators gone",
    "clock jumps",
    ports.LONG_STALL,
    SLIP,
}
"""What keeps a coordinator from ending what it began."""

OF_WORKERS: Final = AT_STEPS | {
    *(what for what in OF_ONE if what.endswith("worker")),
    "all workers cut",
    "containers gone",
    "engine hangs",
    "broker emptied",
    "clock jumps",
    ports.LOST,
}
"""What may cost a worker its runs."""

OF_MESSAGES: Final = frozenset({"queue deleted", "broker emptied", ports.LOST})
"""What takes messages away that the broker has confirmed."""

CALM_EVERY: Final = 8
"""Of so many seeds one is without a fault: there nothing is to be repaired."""

STALLED: Final = CALM_EVERY - 5
"""Of as many seeds one, too, in which steps by which jobs go on stall, while somebody cancels or restarts them."""

_FIRST: Final = ("publish ", "insert", "change Task")
"""Steps that are aimed at first: most of what can go wrong goes wrong there."""

_MOVING: Final = (
    "insert Task",
    "insert_many Task",
    "insert Job sub",
    "change Job:COMPLETED",
    "change Job:FAILED",
)
"""Steps by which a job goes on, or comes to its end."""

AIMED_AT_ONCE: Final = 4
"""Steps that one seed aims at."""


def faults_of(seed: int, labels: list[str]) -> list[Fault]:
    """Return the faults of a seed: every other one is aimed, a few are calm, and in a few steps only stall."""
    chance = random.Random(f"{seed} faults")
    if seed % 2 == 0 and labels:
        return aimed_faults(seed, chance, labels)
    if seed % CALM_EVERY == STALLED:
        return _stalls(chance, [label for label in labels if label.startswith(_MOVING)])
    return [] if seed % CALM_EVERY == CALM_EVERY - 1 else random_faults(chance)


def _stalls(chance: random.Random, labels: list[str]) -> list[Fault]:
    """Return stalls at one of the first steps of each kind; after some whoever made the step dies."""
    return [
        Fault(
            what=chance.choice((ports.STALL, ports.STALL_CRASH)),
            label=label,
            nth=chance.choice((1, 1, 2, 3)),
        )
        for label in labels
    ]


def random_faults(chance: random.Random, most: int = 3) -> list[Fault]:
    """Return a few things that go wrong at some time."""
    return [_timed(chance, chance.choice(TIMED_FAULTS)) for _ in range(chance.randint(1, most))]


def _timed(chance: random.Random, what: str) -> Fault:
    seconds = 90.0 if what in _LONG and chance.random() < 0.3 else 0.0
    return Fault(
        what=what,
        at=round(chance.uniform(TROUBLE_FROM, TROUBLE_TO), 2),
        seconds=seconds or round(chance.choice((2.0, 12.0, 45.0)) * chance.uniform(0.7, 1.3), 2),
        whom=chance.randint(0, 1),
    )


def wanted(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Return what is to be met at steps: each kind of step with each fault that it may have."""
    return [(label, what) for label in labels for what in _faults_at(label)]


def wanted_in_states() -> list[tuple[str, str]]:
    """Return what is to be met at some time: each state of a task or job with each fault by time."""
    return [(state, what) for state in STATES for what in TIMED_FAULTS + AIMED_ONLY]


def _faults_at(label: str) -> tuple[str, ...]:
    """A read that fails is like one that is refused, and nothing comes of one; only messages can be lost or doubled."""
    if label.startswith("read "):
        return (ports.CRASH_BEFORE, ports.FAIL_BEFORE, ports.STALL)
    if label.startswith("publish "):
        return ports.STEP_FAULTS
    return tuple(each for each in ports.STEP_FAULTS if each not in ports.OF_PUBLISHING)


def aimed_faults(seed: int, chance: random.Random, labels: list[str]) -> list[Fault]:
    """Return faults at a few steps, all in turn, and perhaps something beside them."""
    pairs = wanted(labels)
    random.Random("in what order").shuffle(pairs)
    pairs.sort(key=lambda pair: not pair[0].startswith(_FIRST))
    first = seed // 2 * AIMED_AT_ONCE
    made = [
        _aimed(chance, *pairs[number % len(pairs)], round_=number // len(pairs))
        for number in range(first, first + AIMED_AT_ONCE)
    ]
    return made + (random_faults(chance, most=1) if chance.random() < 0.3 else [])


def _aimed(chance: random.Random, label: str, what: str, round_: int) -> Fault:
    nth = 1 if round_ % 2 == 0 else min(int(chance.expovariate(0.3)) + 1, 30)
    return Fault(what=what, label=label, nth=nth)
