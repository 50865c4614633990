"""How much a campaign must have seen before it says anything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from tests.acceptance.ledger import Ledger
from tests.chaos.campaign import Campaign
from tests.chaos.faults import Fault, Part

WHOLE = 1800.0
"""Seconds of a whole campaign."""

SECONDS_A_FAULT = 45.0
"""What a fault takes with what heals it, about."""

OVERTIME = 1.5
"""By what a campaign that has not seen enough may be longer."""


@dataclass(frozen=True)
class Quota:
    """Jobs accepted, tasks that began in a container, faults that struck and were healed; and the kinds of those,
    each of which must have struck."""

    jobs: int = 500
    contained: int = 100
    faults: int = 40
    kinds: frozenset[str] = frozenset()

    @classmethod
    def of(cls, seconds: float, kinds: Collection[str] = ()) -> Quota:
        """Return what a campaign of so many seconds must see: its share of a whole one's, but every kind."""
        share = min(1.0, seconds / WHOLE)
        jobs, contained, faults = (
            math.ceil(share * number) for number in (cls.jobs, cls.contained, cls.faults)
        )
        return cls(jobs, contained, faults, frozenset(kinds))

    def missing(self, campaign: Campaign, ledger: Ledger) -> list[str]:
        """Return what the campaign has not seen enough of. Most tasks must run without a container, too."""
        contained, tasks = contained_of(campaign, ledger), len(ledger.starts)
        seen = {
            "jobs": (len(campaign.accepted), self.jobs),
            "tasks in containers": (contained, self.contained),
            "tasks without": (tasks - contained, contained + 1),
            "faults": (len(campaign.struck), self.faults),
        }
        too_few = [f"{has} {what}, not {due}" for what, (has, due) in seen.items() if has < due]
        never = self.kinds - {struck.fault.name for struck in campaign.struck}
        return too_few + [f"never {name}" for name in sorted(never)]


def contained_of(campaign: Campaign, ledger: Ledger) -> int:
    """How many tasks began in a container."""
    names = {
        name
        for work in list(campaign.accepted.values())
        if work.kind == "contained"
        for name in work.names
    }
    return len({words[0] for words in ledger.lines("start") if words[4] in names})


def in_rounds(
    faults: Sequence[Fault], seconds: float, random: Random
) -> Iterator[tuple[Fault, ...]]:
    """All faults in random order, and again: as many at once as it takes for each to strike in the time, and no two of
    the same part."""
    abreast = math.ceil(len(faults) * SECONDS_A_FAULT / seconds)
    while True:
        left: dict[Part, list[Fault]] = {}
        for fault in random.sample(faults, len(faults)):
            left.setdefault(fault.part, []).append(fault)
        while any(left.values()):
            longest = sorted(filter(None, left.values()), key=len, reverse=True)
            yield tuple(each.pop() for each in longest[:abreast])


def for_seconds(
    rounds: Iterator[tuple[Fault, ...]], seconds: float, enough: Callable[[], bool]
) -> Iterator[tuple[Fault, ...]]:
    """As many as begin within the time, and more until it is `enough`, in overtime."""
    began = time.monotonic()
    for faults in rounds:
        took = time.monotonic() - began
        if took > seconds * OVERTIME or (took > seconds and enough()):
            return
        yield faults
