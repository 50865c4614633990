"""How much a campaign must have seen before it says anything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.acceptance.ledger import Ledger
from tests.chaos.campaign import Campaign
from tests.chaos.faults import Fault

WHOLE = 1800.0
"""Seconds of a whole campaign."""

OVERTIME = 1.5
"""By what a campaign that has not seen enough may be longer."""


@dataclass(frozen=True)
class Quota:
    """Jobs accepted, tasks that began in a container, faults that struck and were healed."""

    jobs: int = 500
    contained: int = 100
    faults: int = 40

    @classmethod
    def of(cls, seconds: float) -> Quota:
        """Return what a campaign of so many seconds must see: its share of a whole one's."""
        share = min(1.0, seconds / WHOLE)
        return cls(*(math.ceil(share * number) for number in (cls.jobs, cls.contained, cls.faults)))

    def missing(self, campaign: Campaign, ledger: Ledger) -> list[str]:
        """Return what the campaign has not seen enough of. Most tasks must run without a container, too."""
        contained, tasks = contained_of(campaign, ledger), len(ledger.starts)
        seen = {
            "jobs": (len(campaign.accepted), self.jobs),
            "tasks in containers": (contained, self.contained),
            "tasks without": (tasks - contained, contained + 1),
            "faults": (len(campaign.struck), self.faults),
        }
        return [f"{has} {what}, not {due}" for what, (has, due) in seen.items() if has < due]


def contained_of(campaign: Campaign, ledger: Ledger) -> int:
    """How many tasks began in a container."""
    names = {
        name
        for work in list(campaign.accepted.values())
        if work.kind == "contained"
        for name in work.names
    }
    return len({words[0] for words in ledger.lines("start") if words[4] in names})


def for_seconds(
    faults: Iterator[Fault], seconds: float, enough: Callable[[], bool]
) -> Iterator[Fault]:
    """As many as begin within the time, and more until it is `enough`, in overtime."""
    began = time.monotonic()
    for fault in faults:
        took = time.monotonic() - began
        if took > seconds * OVERTIME or (took > seconds and enough()):
            return
        yield fault
