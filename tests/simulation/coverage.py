"""What was met in the histories that were played, and histories in which what was not is certain to be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from tests.simulation import faults
from tests.simulation.faults import Fault
from tests.simulation.plant import Result

JUST_AFTER: Final = 1e-6
"""Virtual seconds after a change of a state: less than any step takes."""

FOR_SO_LONG: Final = 12.0
"""Virtual seconds that a fault by time lasts that is added."""

Pair = tuple[str, str]
"""(step or state, fault)"""


class Aimed(msgspec.Struct, frozen=True):
    """A seed that is played again with one more fault."""

    seed: int
    fault: Fault


def missing(results: Iterable[Result], labels: Iterable[str]) -> list[Pair]:
    """Return what was wanted, and never met."""
    met = {pair for result in results for pair in result.met}
    return [p for p in (*faults.wanted(labels), *faults.wanted_in_states()) if p not in met]


def aimed_at(pairs: Iterable[Pair], results: Iterable[Result], round_: int = 0) -> list[Aimed]:
    """Return a history for each pair, as far as its step or state was seen.

    Until the added fault the history is the one that was played, mostly, so the fault is met. Where several were played
    that come by, the pairs take them in turn, and in each round other ones."""
    came_by: dict[str, list[Result]] = {}
    for result in results:
        for name in (*result.labels, *result.states):
            came_by.setdefault(name, []).append(result)
    aimed = []
    for number, (name, what) in enumerate(pairs):
        if there := came_by.get(name):
            chosen = there[(number + round_) % len(there)]
            aimed.append(Aimed(chosen.seed, _fault(name, what, chosen)))
    return aimed


def _fault(name: str, what: str, result: Result) -> Fault:
    if name in result.labels:
        return Fault(what=what, label=name, nth=1)
    return Fault(what=what, at=result.states[name] + JUST_AFTER, seconds=FOR_SO_LONG)
