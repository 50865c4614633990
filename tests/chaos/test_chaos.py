"""Mixed jobs run while everything is killed, frozen and cut off in turn; nothing may be lost or done twice.

`HAULIER_CHAOS_SECONDS` makes it last longer, `HAULIER_CHAOS_SEED` replays a run, `HAULIER_CHAOS_FAULTS` chooses what
strikes, by name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import docker
import pytest

from tests.acceptance.ledger import Ledger
from tests.acceptance.long import SECONDS, long
from tests.acceptance.processes import clean_environment, wait_for
from tests.chaos import plant as plants
from tests.chaos.campaign import Campaign
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.plant import Plant
from tests.chaos.receiver import Receiver

SEED = int(os.environ.get("HAULIER_CHAOS_SEED", "0"))
CHOSEN = tuple(filter(None, os.environ.get("HAULIER_CHAOS_FAULTS", "").split(",")))
"""Names of the only faults that strike."""

SHORT = ("coordinator killed", "worker killed", "broker killed", "primary killed")
"""The faults of the short run, within the suite."""

PACE = 0.4
"""Seconds between two jobs."""

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("chaos"),
]


def say(text: str) -> None:
    """Show a line at once where pytest lets it through (`-s`)."""
    sys.stderr.write(text + "\n")


def endless(random: Random) -> Iterator[Fault]:
    """All faults (or the chosen ones) in random order, then all in another."""
    faults = [fault for fault in FAULTS if not CHOSEN or fault.name in CHOSEN]
    while True:
        yield from random.sample(faults, len(faults))


def for_seconds(faults: Iterator[Fault], seconds: float) -> Iterator[Fault]:
    """As many as begin within the time."""
    end = time.monotonic() + seconds
    for fault in faults:
        if time.monotonic() > end:
            return
        yield fault


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    faults = [fault for fault in FAULTS if fault.name in (CHOSEN or SHORT)]
    ledger = Ledger(tmp_path / "ledger")
    with Receiver() as receiver, plants.running(tmp_path) as plant:
        strike(Campaign(plant, ledger, receiver, SEED or 1, PACE, say), iter(faults), ledger)
        assert audited(plant) == []


@long
@pytest.mark.docker
@pytest.mark.timeout(SECONDS * 2 + 900)
def test_a_long_campaign(tmp_path: Path, docker_engine: docker.DockerClient) -> None:
    seed = SEED or int(time.time())
    ledger = Ledger(tmp_path / "ledger")
    faults = for_seconds(endless(Random(seed)), SECONDS)
    with Receiver() as receiver, plants.running(tmp_path, contained=True) as plant:
        strike(Campaign(plant, ledger, receiver, seed, PACE, say), faults, ledger)
        nodes = {node["id"] for node in plant.get("/nodes")}
        plants.add_contained(plant.cluster).wait_ready()
        assert audited(plant) == []
    wait_for(lambda: not left(docker_engine, nodes), 60, "nothing left in the engine")


def strike(campaign: Campaign, faults: Iterator[Fault], ledger: Ledger) -> None:
    """Run a campaign, show what it was, and see that every promise was kept."""
    say(f"HAULIER_CHAOS_SEED={campaign.seed}")
    try:
        campaign.run(faults)
    finally:
        say(campaign.table())
        say(f"{len(campaign.accepted)} jobs, {ledger.starts.total()} runs")
    found = campaign.faults_found()
    assert not found, "\n".join(found)


def audited(plant: Plant) -> list[object]:
    """What `haulier audit` finds, once it had the time to be put right."""

    def clean() -> bool:
        found[:] = audit(plant)
        return not found

    found: list[object] = []
    try:
        wait_for(clean, 100, "a clean audit", every=5)
    except AssertionError:
        return found
    return []


def audit(plant: Plant) -> list[object]:
    """What `haulier audit` finds now."""
    settings = {"HAULIER_RUNTIME_TYPE": "docker" if plant.contained else "shell"}
    done = subprocess.run(
        [sys.executable, "-m", "haulier.cli", "audit", "--json"],
        env=clean_environment({**plant.cluster.settings, **settings}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    findings: list[object] = json.loads(done.stdout)["findings"]
    assert done.returncode == bool(findings)
    return findings


def left(engine: docker.DockerClient, nodes: set[str]) -> list[str]:
    """What is there of these nodes' containers, volumes and networks."""
    containers = engine.containers.list(all=True, ignore_removed=True)
    things = [*containers, *engine.volumes.list(), *engine.networks.list()]
    return [
        str(thing.id)
        for thing in things
        if nodes & set((thing.attrs.get("Labels") or getattr(thing, "labels", None) or {}).values())
    ]
