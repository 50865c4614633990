"""What a campaign came to, for people: shown when it is over, and kept in `build/`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from devservices.places import ROOT
from tests.acceptance.ledger import Ledger
from tests.chaos.campaign import Campaign
from tests.chaos.quota import contained_of
from tests.chaos.truth import KINDS, Wrong

FOLDER = ROOT / "build"


def say(text: str) -> None:
    """Show a line at once where pytest lets it through (`-s`)."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Report:
    """A page about a campaign that grows while it is judged. Each part of it is shown as it comes."""

    def __init__(self, seed: int, name: str) -> None:
        self.path: Path = FOLDER / f"{name}-{seed}.md"
        self._parts = [f"# Chaos, `HAULIER_CHAOS_SEED={seed}`"]

    def add(self, part: str) -> None:
        """Show and keep one more part."""
        say(part)
        self._parts.append(part)
        FOLDER.mkdir(exist_ok=True)
        self.path.write_text("\n\n".join(self._parts) + "\n")

    def faults(self, campaign: Campaign, ledger: Ledger) -> None:
        """Add what struck, and at how much."""
        contained, tasks = contained_of(campaign, ledger), len(ledger.starts)
        self.add(campaign.table())
        self.add(
            f"{len(campaign.struck)} faults; {len(campaign.accepted)} jobs; {tasks} tasks, {contained} of them in"
            f" containers; {ledger.starts.total()} runs"
        )

    def verdict(self, wrong: Sequence[Wrong]) -> None:
        """Add how many promises were broken, by kind."""
        counts = Counter(each.kind for each in wrong)
        self.add("\n".join(f"- {kind}: {counts[kind]}" for kind in KINDS))
