"""Workers come and go: by hand beside one another in one folder, and as an autoscaler wants them."""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import (
    SHELL,
    Cluster,
    Coordinator,
    Process,
    Worker,
    stop_all,
    wait_for,
)

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(240),
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def folders(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir() if path.name.isdigit())


def test_five_workers_of_one_folder_two_killed_and_two_added(
    quick: Cluster, ledger: Ledger
) -> None:
    data = quick.folder / "data"
    quick.settings["HAULIER_WORKER_DATA"] = str(data)
    quick.settings["HAULIER_WORKER_QUEUES_DEFAULT"] = "2"
    server = quick.add_coordinator()
    five = [quick.add_worker() for _ in range(5)]
    quick.wait_ready()
    assert len(folders(data)) == 5
    ids = [server.submit(ledger.job(ledger.task("sleep 1.5"))) for _ in range(40)]
    ledger.wait_starts(10)
    for worker in five[:2]:
        worker.kill()
    added = [quick.add_worker() for _ in range(2)]
    for worker in added:
        worker.wait_ready()
    # Those that were added took the places of those that were killed.
    assert len(folders(data)) == 5
    done = server.wait_jobs(ids, within=150)
    assert Counter(job["state"] for job in done.values()) == {"COMPLETED": 40}
    tasks = [server.job(job_id)["execution"][-1] for job_id in ids]
    assert all(ledger.ends[task["id"]] >= 1 for task in tasks)
    # Only what the two ran then was run again: four slots.
    assert 1 <= len(ledger.repeated) <= 4
    assert len(ledger.repeated) <= server.noted("run_lost") <= 4
    later = [server.submit(ledger.job(ledger.task("sleep 1.5"))) for _ in range(10)]
    server.wait_jobs(later, within=60)
    nodes = {server.job(job_id)["execution"][-1]["nodeId"] for job_id in later}
    assert len(nodes) == 5


class OneTaskWorker(Process):
    """`haulier run worker --once`."""

    ready = "worker started"

    def __init__(self, cluster: Cluster, name: str) -> None:
        settings = {
            **SHELL,
            **cluster.settings,
            "HAULIER_WORKER_ADDRESS": "localhost:0",
            "HAULIER_WORKER_DATA": str(cluster.folder / "data"),
        }
        command = ["haulier.cli", "run", "worker", "--once"]
        super().__init__(command, settings, cluster.folder / f"{name}.log")


def test_workers_for_one_task_each_take_one_and_exit(quick: Cluster, ledger: Ledger) -> None:
    server = quick.add_coordinator()
    server.wait_ready()
    workers = [OneTaskWorker(quick, f"once-{number}") for number in range(3)]
    try:
        for worker in workers:
            worker.launch()
        for worker in workers:
            worker.wait_ready()
        ids = [server.submit(ledger.job(ledger.task())) for _ in range(4)]
        assert [worker.process.wait(60) for worker in workers] == [0, 0, 0]
    finally:
        stop_all(workers)
    jobs = [server.job(job_id) for job_id in ids]
    assert Counter(job["state"] for job in jobs) == {"COMPLETED": 3, "SCHEDULED": 1}
    nodes = {job["execution"][-1]["nodeId"] for job in jobs if job["state"] == "COMPLETED"}
    assert len(nodes) == sum(ledger.ends.values()) == 3
    assert ledger.repeated == {}


class Scaler:
    """What KEDA does: asks how many slots a queue has use for, and has as many workers, whichever."""

    slots = 2

    def __init__(self, cluster: Cluster, server: Coordinator) -> None:
        self._cluster = cluster
        self._server = server
        self.workers: list[Worker] = []
        self._leaving: list[Worker] = []
        self.most = 0

    def scale(self) -> int:
        """Ask once, and start or stop workers; return how many there are to be."""
        asked = self._server.get("/queues/default/scale")
        assert asked["busy"] + asked["ready"] >= asked["desired"] >= asked["busy"], asked
        wanted: int = min(4, math.ceil(asked["desired"] / self.slots))
        while len(self.workers) < wanted:
            self.workers.append(self._cluster.add_worker())
        while len(self.workers) > wanted:
            leaving = self.workers.pop(0)  # whatever it runs
            leaving.signal(signal.SIGTERM)
            self._leaving.append(leaving)
        self.most = max(self.most, wanted)
        return wanted

    def wait_left(self) -> None:
        """Return once those that were to stop have, in order."""
        for worker in self._leaving:
            assert worker.process.wait(60) == 0


def test_an_autoscaler_stops_no_running_task(quick: Cluster, ledger: Ledger) -> None:
    quick.settings["HAULIER_WORKER_QUEUES_DEFAULT"] = str(Scaler.slots)
    server = quick.add_coordinator()
    server.wait_ready()
    scaler = Scaler(quick, server)
    first = server.submit(ledger.job(ledger.task("sleep 1")))
    wait_for(scaler.scale, 20, "use for a worker where there is none yet")
    server.wait_job(first)
    wait_for(lambda: scaler.scale() == 0, 30, "nobody is needed where there is nothing to do")
    work = [0.5] * 12 + [6.0] * 2
    ids = [server.submit(ledger.job(ledger.task(f"sleep {seconds}"))) for seconds in work]
    deadline = time.monotonic() + 120
    while any(server.job(job_id)["state"] not in ("COMPLETED", "FAILED") for job_id in ids):
        scaler.scale()
        assert time.monotonic() < deadline, "the jobs have not ended"
        time.sleep(0.3)
    wait_for(lambda: scaler.scale() == 0, 30, "nobody is needed in the end")
    scaler.wait_left()
    assert {server.job(job_id)["state"] for job_id in ids} == {"COMPLETED"}
    assert scaler.most >= 3
    assert ledger.repeated == {}
    assert sum(ledger.ends.values()) == len(ids) + 1
