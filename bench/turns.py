"""Two ways to do the same, measured in turns within one run: only their ratio means anything."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable

import msgspec

WARMING = 0.2
"""Share of a turn's work that is done before the first one, by each side."""

Measured = Callable[[float], Awaitable[float]]
"""Does this share of one turn's work, and returns how much of it was done a second."""


class Comparison(msgspec.Struct, frozen=True):
    """What came of the turns: rates a second, in order."""

    name: str
    unit: str
    floor_name: str
    needed: float
    ours: list[float]
    floor: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours beside the floor of the same turn."""
        return [mine / theirs for mine, theirs in zip(self.ours, self.floor, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


async def in_turns(rounds: int, floor: Measured, ours: Measured) -> tuple[list[float], list[float]]:
    """Return the rates of both (ours, the floor's), measured A B A B once both are warm."""
    await floor(WARMING)
    await ours(WARMING)
    theirs, mine = [], []
    for number in range(rounds):
        theirs.append(await floor(1.0))
        mine.append(await ours(1.0))
        ratio = mine[-1] / theirs[-1]
        print(
            f"  turn {number + 1}: floor {theirs[-1]:.1f}/s, ours {mine[-1]:.1f}/s, ratio {ratio:.2f}",
            flush=True,
        )
    return mine, theirs


async def rate(count: int, work: Awaitable[object]) -> float:
    """Return how many of `count` things a second `work` does."""
    began = time.perf_counter()
    await work
    return count / (time.perf_counter() - began)


def table(comparisons: list[Comparison]) -> str:
    """Return a Markdown table of medians."""
    rows = [
        "| measured | ours, a second | floor, a second | ratio | needed |",
        "|---|---:|---:|---:|---:|",
    ]
    for each in comparisons:
        ours, floor = statistics.median(each.ours), statistics.median(each.floor)
        rows.append(
            f"| {each.name} ({each.unit}) beside {each.floor_name} "
            f"| {ours:.1f} | {floor:.1f} | {each.ratio:.2f} | {each.needed:.1f} |"
        )
    return "\n".join(rows)
