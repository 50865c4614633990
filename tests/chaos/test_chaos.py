"""Mixed jobs run while everything is killed, frozen and cut off in turn; nothing may be lost or done twice.

`HAULIER_CHAOS_SECONDS` makes it last longer, `HAULIER_CHAOS_SEED` replays a run, `HAULIER_CHAOS_FAULTS` chooses what
strikes, by name. What struck and what became of it is kept in `build/`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import docker
import pytest

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import wait_for
from tests.chaos import auditor
from tests.chaos import plant as plants
from tests.chaos.auditor import things_of
from tests.chaos.campaign import Campaign
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.plant import Plant
from tests.chaos.quota import OVERTIME, Quota, for_seconds, in_rounds
from tests.chaos.receiver import Receiver
from tests.chaos.report import Report, say
from tests.chaos.truth import Truth

IN_CI = bool(os.environ.get("CI"))

SECONDS = float(os.environ.get("HAULIER_CHAOS_SECONDS", "300" if IN_CI else "0"))
"""How long the long campaign lasts; 0: there is none. In CI it is short, and always the same."""

SEED = int(os.environ.get("HAULIER_CHAOS_SEED", "1" if IN_CI else "0"))
CHOSEN = tuple(filter(None, os.environ.get("HAULIER_CHAOS_FAULTS", "").split(",")))
"""Names of the only faults that strike."""

SHORT = ("coordinator killed", "worker killed", "broker killed", "primary killed")
"""The faults of the short run, which stands in for the long one where there is none."""

PACE = 0.4
"""Seconds between two jobs."""

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("chaos"),
]


def chosen(plant: Plant) -> list[Fault]:
    """All faults (or the chosen ones) that can strike this plant."""
    return [
        fault
        for fault in FAULTS
        if (not CHOSEN or fault.name in CHOSEN) and fault.can_strike(plant)
    ]


class Trial:
    """A campaign on a plant, and the judgement of it."""

    def __init__(
        self, plant: Plant, folder: Path, receiver: Receiver, seed: int, name: str = "chaos"
    ) -> None:
        say(f"HAULIER_CHAOS_SEED={seed}")
        self.ledger = Ledger(folder / "ledger")
        self.campaign = Campaign(plant, self.ledger, receiver.url, seed, PACE, say)
        self.truth = Truth(plant, self.ledger, receiver)
        self.report = Report(seed, name)

    def strike(self, rounds: Iterable[Sequence[Fault]]) -> None:
        """Run the campaign, show what it was, and see that every promise was kept."""
        try:
            self.campaign.run(rounds)
        finally:
            self.report.faults(self.campaign, self.ledger)
        self.truth.log_losses = self.campaign.log_losses
        wrong = self.truth.wrong(self.campaign.accepted, self.campaign.excuses)
        self.report.verdict(wrong)
        assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.skipif(bool(SECONDS), reason="the long campaign strikes with these faults too")
@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    rounds = [(fault,) for fault in FAULTS if fault.name in (CHOSEN or SHORT)]
    with Receiver() as receiver, plants.running(tmp_path) as plant:
        trial = Trial(plant, tmp_path, receiver, SEED or 1, "chaos-short")
        trial.strike(rounds)
        assert auditor.findings(plant) == {}


@pytest.mark.skipif(not SECONDS, reason="takes minutes: make chaos runs it")
@pytest.mark.docker
@pytest.mark.timeout(SECONDS * OVERTIME + 1200)
def test_a_long_campaign(
    tmp_path: Path, docker_host: str, docker_engine: docker.DockerClient
) -> None:
    seed = SEED or int(time.time())
    with Receiver() as receiver, plants.running(tmp_path, docker_host=docker_host) as plant:
        trial = Trial(plant, tmp_path, receiver, seed)
        campaign, ledger = trial.campaign, trial.ledger
        faults = chosen(plant)
        quota = Quota.of(SECONDS, [fault.name for fault in faults])
        rounds = in_rounds(faults, SECONDS, Random(seed))
        trial.strike(for_seconds(rounds, SECONDS, lambda: not quota.missing(campaign, ledger)))
        assert quota.missing(campaign, ledger) == []
        assert auditor.findings(plant) == {}
        auditor.sees_an_end_applied_twice(plant, trial.truth, campaign.accepted)
        auditor.sees_what_dead_workers_leave(plant, ledger, campaign.jobs, docker_engine)
        nodes = plant.nodes()
    wait_for(lambda: not things_of(docker_engine, nodes), 60, "nothing left in the engine")
    trial.report.add("- containers, volumes, networks left: 0")
    say(f"kept in {trial.report.path}")
