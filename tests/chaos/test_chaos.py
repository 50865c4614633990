"""Mixed jobs run while everything is killed, frozen and cut off in turn; nothing may be lost or done twice.

`HAULIER_CHAOS_SECONDS` makes it last longer, `HAULIER_CHAOS_SEED` replays a run, `HAULIER_CHAOS_FAULTS` chooses what
strikes, by name.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.acceptance.ledger import Ledger
from tests.chaos import plant as plants
from tests.chaos.campaign import Campaign
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.receiver import Receiver

SECONDS = float(os.environ.get("HAULIER_CHAOS_SECONDS", "0"))
SEED = int(os.environ.get("HAULIER_CHAOS_SEED", "0"))
PACE = 0.4
"""Seconds between two jobs."""
CHOSEN = os.environ.get("HAULIER_CHAOS_FAULTS", "")
"""Names of the only faults that strike, separated by commas."""
SHORT = ("coordinator killed", "worker killed", "broker killed", "primary killed")
"""The faults of the short run, within the suite."""

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("chaos"),
    pytest.mark.timeout(SECONDS + 900),
]


def say(text: str) -> None:
    """Show a line, also while pytest keeps the output."""
    sys.__stderr__.write(text + "\n")  # type: ignore[union-attr]


def endless(random: Random) -> Iterator[Fault]:
    """All faults in random order, then all in another."""
    while True:
        yield from random.sample(FAULTS, len(FAULTS))


def for_seconds(faults: Iterator[Fault], seconds: float) -> Iterator[Fault]:
    """As many as begin within the time."""
    end = time.monotonic() + seconds
    for fault in faults:
        if time.monotonic() > end:
            return
        yield fault


def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    seed = SEED or (int(time.time()) if SECONDS else 1)
    say(f"HAULIER_CHAOS_SEED={seed}")
    faults = (
        for_seconds(endless(Random(seed)), SECONDS)
        if SECONDS
        else iter(
            [fault for fault in FAULTS if fault.name in (CHOSEN.split(",") if CHOSEN else SHORT)]
        )
    )
    ledger = Ledger(tmp_path / "ledger")
    with Receiver() as receiver, plants.running(tmp_path) as plant:
        campaign = Campaign(plant, ledger, receiver, seed, PACE, say)
        try:
            campaign.run(faults)
        finally:
            say(campaign.table())
            say(f"{len(campaign.accepted)} jobs, {ledger.starts.total()} runs")
        found = campaign.faults_found()
        assert not found, "\n".join(found)
