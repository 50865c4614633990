"""The version before and the present one run side by side under load, upgraded and downgraded by crashes.

Each process is killed about every 20 s, and the other version begins in its place, on the same folder.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pymongo.database
import pytest

from shared.ids import derived_id
from shared.model.documents import MICROS_PER_SECOND
from tests.acceptance.ledger import Ledger, now
from tests.acceptance.processes import Cluster, Process, wait_for
from tests.acceptance.rabbit import figures_of
from tests.chaos.load import Load
from tests.chaos.plant import Site
from tests.chaos.receiver import Receiver
from tests.chaos.truth import Excuse, Truth
from tests.services.fixtures import Database, Vhost

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("upgrade"),
    pytest.mark.timeout(900),
]

ROUNDS = 5 if os.environ.get("HAULIER_LONG") else 1
"""How often all go up and down."""

APART = 5.0
"""Seconds between two crashes: each of four processes has one every 20 s."""

PACE = 0.4
"""Seconds between two jobs."""

PERIOD = 2 * MICROS_PER_SECOND
"""Between two firings of a schedule."""

WITHIN = 60.0
"""Seconds in which all is put right after the last crash (engine spec, promise 2)."""


class Versions:
    """Two coordinators and two workers, each of either version."""

    def __init__(self, cluster: Cluster, previous: Path) -> None:
        self._cluster = cluster
        self._previous = ("env", "-C", str(previous), f"PYTHONPATH={previous}")
        self.excuses: list[Excuse] = []
        cluster.prefix = self._previous
        for _ in range(2):
            cluster.add_coordinator()
            cluster.add_worker()
        cluster.wait_ready()

    def in_order(self, order: str) -> list[Process]:
        """Return all coordinators, then all workers, or the other way round."""
        coordinators, workers = self._cluster.coordinators, self._cluster.workers
        first = order == "coordinators first"
        return [*coordinators, *workers] if first else [*workers, *coordinators]

    def change(self, part: Process) -> None:
        """Kill a process; the other version begins where it was."""
        began, until = now(), time.monotonic() + APART
        part.kill()
        part.prefix = () if part.prefix else self._previous
        part.start()
        if part in self._cluster.workers:
            self.excuses.append((began, now()))
        time.sleep(max(0.0, until - time.monotonic()))


class Firings:
    """What a schedule that is paused now has made, as it is stored: no version hides what another one did."""

    def __init__(self, database: pymongo.database.Database[dict[str, Any]], site: Site, id: str):
        assert site.ask("PUT", f"/scheduled-jobs/{id}/pause") == (200, {"status": "OK"})
        self._jobs, self._schedules = database["jobs"], database["schedules"]
        self._id = id

    def all_made(self) -> bool:
        """Whether there is one job of each firing, and no other, and all have completed. A firing that the pause left
        out is taken back."""
        stored = self._schedules.find_one({"_id": self._id})
        assert stored is not None
        times = range(stored["createdAt"] + PERIOD, stored["firedAt"] + 1, PERIOD)
        expected = {derived_id("firing", self._id, at): "COMPLETED" for at in times}
        assert expected
        made = self._jobs.find({"schedule.id": self._id})
        return {job["_id"]: job["state"] for job in made} == expected


@pytest.mark.parametrize("order", ["coordinators first", "workers first"])
def test_versions_mix_up_and_down_under_load(
    quick: Cluster,
    ledger: Ledger,
    receiver: Receiver,
    rabbitmq_vhost: Vhost,
    mongodb_database: Database,
    previous_version: Path,
    order: str,
) -> None:
    versions = Versions(quick, previous_version)
    site = Site(quick)
    job = ledger.job(ledger.task(), schedule={"cron": f"@every {PERIOD // MICROS_PER_SECOND}s"})
    answer = site.ask("POST", "/scheduled-jobs", json.dumps(job))
    assert answer is not None
    schedule = answer[1]["id"]
    load = Load(site, ledger, receiver.url, 1, PACE)
    with load.going():
        for _ in range(2 * ROUNDS):
            for part in versions.in_order(order):
                versions.change(part)
        # In the end one is there that knows all that was begun.
        versions.change(quick.coordinators[0])
    load.wait_ended(WITHIN, "the last jobs")
    with pymongo.MongoClient[dict[str, Any]](mongodb_database.url) as client:
        firings = Firings(client[mongodb_database.name], site, schedule)
        wait_for(firings.all_made, WITHIN, "one job of each firing")
    assert len(load.accepted) > 20 * ROUNDS
    wrong = Truth(site, ledger, receiver).wrong(load.accepted, versions.excuses)
    assert not wrong, "\n".join(map(str, wrong))
    assert figures_of(rabbitmq_vhost)["dead"][0] == 0
