"""The promises of the engine spec ("What holds when something dies"), each by what breaks it.

What takes a minute or more is marked `long` and run by `make promises`. Promises 8, 9 and 12, and more of 2 and 6, are
in `tests/acceptance/test_cluster_faults.py` and `test_cluster.py`.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import pymongo
import pytest

from devservices import rabbitmq
from devservices.mongodb_node import Node as MongoNode
from devservices.nodes import node_folder
from devservices.rabbitmq_node import Node as RabbitNode
from tests.acceptance.ledger import Ledger
from tests.acceptance.long import long
from tests.acceptance.processes import ENDED, Cluster, Coordinator, wait_for
from tests.acceptance.rabbit import put
from tests.chaos.clocks import can_set_clocks, clock_of, clock_that_is
from tests.chaos.link import Link, add_far_worker, link_to
from tests.chaos.receiver import Receiver
from tests.services.fixtures import Database, Vhost
from tests.services.need import need

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("promises"),
    pytest.mark.timeout(240),
]


def filled(
    cluster: Cluster, coordinators: int = 1, workers: int = 1, **of_workers: str
) -> Coordinator:
    for _ in range(coordinators):
        cluster.add_coordinator()
    for _ in range(workers):
        cluster.add_worker(**of_workers)
    cluster.wait_ready()
    return cluster.coordinators[0]


# --- 1: a job answered 200 is never lost ------------------------------------------------------------------------------


def test_promise_1_a_job_answered_200_outlives_coordinator_broker_and_store(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode, own_store: MongoNode
) -> None:
    server = filled(cluster)
    ids = [server.submit(ledger.job(ledger.task())) for _ in range(10)]
    server.kill()
    own_store.kill()
    own_broker.kill()
    own_store.start()
    own_broker.start()
    server.start()
    done = server.wait_jobs(ids, within=100)
    assert Counter(job["state"] for job in done.values()) == {"COMPLETED": 10}


# --- 2: no task is lost and none hangs --------------------------------------------------------------------------------


def test_promise_2_a_task_whose_queue_was_deleted_is_sent_again(
    quick: Cluster, ledger: Ledger
) -> None:
    server = filled(quick, workers=0)
    ids = [server.submit(ledger.job(ledger.task())) for _ in range(5)]

    def waiting() -> bool:
        return any(
            queue["name"] == "default" and queue["size"] == 5 for queue in server.get("/queues")
        )

    wait_for(waiting, 20, "five tasks in their queue")
    assert server.call("DELETE", "/queues/default?force=true")[0] == 200
    began = time.monotonic()
    quick.add_worker().wait_ready()
    done = server.wait_jobs(ids, within=60)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert time.monotonic() - began < 60
    assert ledger.repeated == {}


# --- 3: an end is applied once ----------------------------------------------------------------------------------------


def test_promise_3_an_end_that_comes_again_and_again_counts_once(
    cluster: Cluster,
    ledger: Ledger,
    receiver: Receiver,
    rabbitmq_vhost: Vhost,
    mongodb_database: Database,
) -> None:
    server = filled(cluster, coordinators=2)
    tasks = [ledger.task(name="one", var="one"), ledger.task("sleep 3", name="two")]
    job_id = server.submit(ledger.job(*tasks, webhooks=[{"url": receiver.url}]))
    ledger.wait_starts(2)
    with pymongo.MongoClient[dict[str, Any]](mongodb_database.url) as client:
        stored = client[mongodb_database.name]["tasks"].find_one({"name": "one", "jobId": job_id})
    assert stored is not None
    end = {
        "kind": "ended",
        "taskId": stored["_id"],
        "jobId": job_id,
        "run": stored["run"],
        "nonce": stored["nonce"],
        "nodeId": stored["nodeId"],
        "ok": True,
    }
    for queue in ("completed", "error"):
        for _ in range(5):
            put(rabbitmq_vhost, queue, json.dumps(end).encode())
    job = server.wait_job(job_id)
    assert (job["state"], job["position"], len(job["execution"])) == ("COMPLETED", 3, 2)
    assert ledger.starts.total() == 2
    wait_for(lambda: receiver.told(job_id)["COMPLETED"], 30, "its webhook")
    assert receiver.told(job_id) == {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1}


# --- 4: an attempt that finished is not run again ---------------------------------------------------------------------


@contextmanager
def lasting(seconds: float) -> Iterator[None]:
    """Have what is done inside last so long, whatever it does: how long a fault lasts is what is tested."""
    until = time.monotonic() + seconds
    yield
    time.sleep(max(0.0, until - time.monotonic()))


@long
def test_promise_4_a_minute_without_any_coordinator_repeats_nothing(
    cluster: Cluster, ledger: Ledger
) -> None:
    server = filled(cluster, coordinators=2, workers=2)
    ids = [
        server.submit(ledger.job(ledger.task(f"sleep {seconds}")))
        for seconds in [10, 80] * 4 + [1] * 4
    ]
    ledger.wait_starts(8)
    for part in cluster.coordinators:
        part.kill()
    with lasting(60):
        wait_for(lambda: len(ledger.ends) == 4, 40, "four ended while nobody heard of it")
    assert len(ledger.starts) == 8, "nothing begins that nobody grants"
    for part in cluster.coordinators:
        part.start()
    done = server.wait_jobs(ids, within=90)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}
    assert ledger.ends.total() == 12


def test_promise_4_an_end_on_its_way_outlives_a_crash_of_the_broker(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode
) -> None:
    server = filled(cluster)
    ids = [server.submit(ledger.job(ledger.task("sleep 2"))) for _ in range(4)]
    ledger.wait_starts(4)
    server.kill()
    wait_for(lambda: len(ledger.ends) == 4, 30, "all ended while nobody heard of it")
    own_broker.kill()
    own_broker.start()
    server.start()
    done = server.wait_jobs(ids, within=90)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}


@long
def test_promise_4_a_coordinator_that_freezes_for_a_minute_beside_a_live_one(
    cluster: Cluster, ledger: Ledger
) -> None:
    filled(cluster, coordinators=2, workers=2)
    frozen, server = cluster.coordinators
    lasting_longer = [server.submit(ledger.job(ledger.task("sleep 70"))) for _ in range(2)]
    ids = [server.submit(ledger.job(ledger.task("sleep 12"))) for _ in range(6)]
    ledger.wait_starts(8)
    frozen.signal(signal.SIGSTOP)
    try:
        with lasting(60):
            for _ in range(4):
                done = server.wait_jobs(ids, within=60)
                assert {job["state"] for job in done.values()} == {"COMPLETED"}
                ids = [server.submit(ledger.job(ledger.task("sleep 4"))) for _ in range(6)]
    finally:
        frozen.signal(signal.SIGCONT)
    done = server.wait_jobs([*ids, *lasting_longer], within=60)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}
    assert ledger.ends.total() == 32


# --- 5: at most one run holds a grant ---------------------------------------------------------------------------------


@pytest.fixture
def link(own_rabbitmq: RabbitNode, quick: Cluster) -> Iterator[Link]:
    """A link to a RabbitMQ that is this test's own."""
    quick.settings["HAULIER_BROKER_RABBITMQ_URL"] = own_rabbitmq.url
    quick.settings["HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL"] = own_rabbitmq.management_url
    with link_to(own_rabbitmq.port) as made:
        yield made


def test_promise_5_a_worker_cut_off_for_ten_seconds_goes_on_and_reports(
    quick: Cluster, ledger: Ledger, link: Link
) -> None:
    server = filled(quick, workers=0)
    add_far_worker(quick, link).wait_ready()
    ids = [server.submit(ledger.job(ledger.task(f"sleep {n}"))) for n in (5, 5, 25, 25)]
    ledger.wait_starts(4)
    running = ledger.alive()
    link.cut()
    with lasting(10):
        quick.add_worker().wait_ready()
    link.mend()
    assert len(set(running) & set(ledger.alive())) == 2, "what lasts longer goes on"
    done = server.wait_jobs(ids, within=60)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}
    assert ledger.ends.total() == 4


@long
def test_promise_5_a_worker_cut_off_for_longer_than_its_lease_is_run_after_and_stopped(
    quick: Cluster, ledger: Ledger, link: Link
) -> None:
    server = filled(quick, workers=0)
    far = add_far_worker(quick, link)
    far.wait_ready()
    job_id = server.submit(ledger.job(ledger.task("sleep 70")))
    ledger.wait_starts(1)
    (first,) = ledger.alive()
    (lost,) = {task["nodeId"] for task in server.job(job_id)["execution"]}
    link.cut()
    quick.add_worker().wait_ready()
    wait_for(lambda: ledger.starts.total() == 2, 90, "its second run elsewhere")
    assert first in ledger.alive(), "the first goes on: nobody could tell it"
    link.mend()
    wait_for(lambda: first not in ledger.alive(), 45, "the first run stopped")
    job = server.wait_job(job_id, within=100)
    assert job["state"] == "COMPLETED"
    (task,) = job["execution"]
    assert task["nodeId"] not in (lost, None), "the second run is the one that counts"
    assert list(ledger.starts.values()) == [2]
    assert list(ledger.ends.values()) == [1]
    assert far.terminate(20) == 0, f"it waits for nothing any more: {far.text()}"


@long
def test_promise_5_a_slow_link_repeats_nothing(quick: Cluster, ledger: Ledger, link: Link) -> None:
    server = filled(quick, workers=0)
    add_far_worker(quick, link).wait_ready()
    link.delay = 0.4
    ids = [server.submit(ledger.job(ledger.task("sleep 1"))) for _ in range(8)]
    done = server.wait_jobs(ids, within=90)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}


# --- 6: what a killed worker left is removed --------------------------------------------------------------------------


@long
@pytest.mark.docker
def test_promise_6_what_a_killed_worker_left_is_removed_by_another(
    quick: Cluster, docker_engine: docker.DockerClient
) -> None:
    quick.settings["HAULIER_RUNTIME_TYPE"] = "docker"
    server = filled(quick, HAULIER_RUNTIME_TYPE="docker")
    mounts = [{"type": "volume", "target": "/data"}]
    task = {"name": "task", "image": "alpine:3.18.3", "run": "sleep 600", "mounts": mounts}
    job_id = server.submit({"name": "job", "tasks": [task]})

    def task_now() -> Any:
        tasks = server.job(job_id)["execution"]
        return tasks[0] if tasks else {}

    wait_for(lambda: task_now().get("state") == "RUNNING", 60, "its run")
    dead = task_now()["nodeId"]

    def left() -> list[str]:
        filters: Any = {"label": f"haulier.node={dead}"}
        listed = docker_engine.containers.list(all=True, filters=filters, ignore_removed=True)
        volumes = docker_engine.volumes.list(filters=filters)
        return [str(each.id) for each in (*listed, *volumes)]

    wait_for(left, 60, "its container")
    quick.workers[0].kill()
    quick.add_worker(HAULIER_RUNTIME_TYPE="docker").wait_ready()
    wait_for(lambda: task_now()["nodeId"] not in (dead, "", None), 90, "its second run")
    quick.add_worker(HAULIER_RUNTIME_TYPE="docker").wait_ready()
    wait_for(lambda: not left(), 60, "what the first left removed")
    assert server.call("PUT", f"/jobs/{job_id}/cancel")[0] == 200
    wait_for(lambda: server.job(job_id)["state"] == "CANCELLED", 10, "its end")


# --- 7: a task may run for days ---------------------------------------------------------------------------------------


IMPATIENT = "[{rabbit, [{channel_tick_interval, 5000}, {consumer_timeout, 15000}]}]."
"""An advanced.config: RabbitMQ looks every 5 s for deliveries that wait 15 s for their acknowledgement."""

STRUCK = re.compile(
    r"delivery acknowledgement on channel \d+ timed out\. Timeout value used: 15000 ms"
)
"""What RabbitMQ logs when it closes a channel for that."""


@pytest.fixture
def impatient() -> Iterator[RabbitNode]:
    """A RabbitMQ that waits 15 s for an acknowledgement."""
    need("rabbitmq")
    rabbitmq.require()
    with node_folder("rabbitmq") as folder:
        node = RabbitNode(folder, advanced=IMPATIENT)
        node.start()
        yield node


@long
def test_promise_7_a_task_outlasts_the_brokers_acknowledgement_timeout(
    cluster: Cluster, ledger: Ledger, impatient: RabbitNode
) -> None:
    cluster.settings["HAULIER_BROKER_RABBITMQ_URL"] = impatient.url
    cluster.settings["HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL"] = impatient.management_url
    server = filled(cluster, HAULIER_WORKER_QUEUES_DEFAULT="2")
    began = time.monotonic()
    patient = server.submit(ledger.job(ledger.task("sleep 90")))
    ledger.wait_starts(1)
    beside = []
    while server.job(patient)["state"] not in ENDED:
        beside.append(seconds_of(server, ledger.job(ledger.task("sleep 1"))))
        assert time.monotonic() - began < 120, server.job(patient)
        if time.monotonic() - began > 30:
            assert STRUCK.search(log_of(impatient)), "it struck while the task ran"
    job = server.job(patient)
    assert (job["state"], len(job["execution"])) == ("COMPLETED", 1)
    assert time.monotonic() - began > 90
    assert len(beside) > 20
    assert max(beside) < 6, "the slot beside it was not disturbed"
    pair = [server.submit(ledger.job(ledger.task("sleep 4"))) for _ in range(2)]
    wait_for(lambda: len(ledger.alive()) == 2, 15, "new work for the slot that lost its channel")
    done = server.wait_jobs(pair, within=30)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}
    assert ledger.starts.total() == ledger.ends.total() == len(beside) + 3


def seconds_of(server: Coordinator, job: dict[str, Any]) -> float:
    """Return how long a job took that completes."""
    began = time.monotonic()
    done = server.wait_job(server.submit(job))
    assert done["state"] == "COMPLETED", done
    return time.monotonic() - began


def log_of(node: RabbitNode) -> str:
    """Return what a RabbitMQ has logged."""
    return (node.folder / "log").read_text(errors="replace")


# --- 10: no part of a log is lost or doubled --------------------------------------------------------------------------


def test_promise_10_the_log_is_whole_though_coordinators_and_broker_die(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode
) -> None:
    server = filled(cluster, coordinators=2)
    count = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.05; done"
    ids = [server.submit(ledger.job(ledger.task(count))) for _ in range(4)]
    ledger.wait_starts(4)
    wait_for(lambda: "line 20\n" in server.log_of(ids[0]), 30, "logs are on their way")
    cluster.coordinators[1].kill()
    own_broker.kill()
    own_broker.start()
    done = server.wait_jobs(ids, within=120)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    for job_id in ids:
        wait_for(lambda job_id=job_id: "line 300\n" in server.log_of(job_id), 40, "its last line")  # type: ignore[misc]
        lines = server.log_of(job_id).splitlines()
        assert lines == [f"line {n}" for n in range(1, 301)]


# --- 11: time-based work survives, and clocks do no harm --------------------------------------------------------------


def test_promise_11_what_is_due_while_nobody_is_there_is_done_when_somebody_comes(
    cluster: Cluster, ledger: Ledger
) -> None:
    server = filled(cluster, coordinators=2)
    work = "test $HAULIER_ATTEMPT -ge 2 || exit 1"
    retry = {"limit": 1, "initialDelay": "6s"}
    job_id = server.submit(ledger.job(ledger.task(work, retry=retry)))
    wait_for(lambda: len(server.job(job_id)["execution"]) == 2, 30, "the delay of its second try")
    for part in cluster.coordinators:
        part.kill()
    for part in cluster.coordinators:
        part.start()
    job = server.wait_job(job_id, within=60)
    assert (job["state"], len(job["execution"])) == ("COMPLETED", 2)
    assert ledger.starts.total() == 2


def test_promise_11_each_firing_of_a_schedule_makes_one_job_on_two_coordinators(
    cluster: Cluster, ledger: Ledger
) -> None:
    server = filled(cluster, coordinators=2)
    schedule = {"cron": "@every 2s"}
    body = {**ledger.job(ledger.task()), "schedule": schedule}
    status, answer = server.call(
        "POST", "/scheduled-jobs", json.dumps(body), {"Content-Type": "application/json"}
    )
    assert status == 200, answer
    wait_for(lambda: len(ledger.ends) >= 4, 40, "four firings")
    assert server.call("PUT", f"/scheduled-jobs/{answer['id']}/pause")[0] == 200
    jobs = server.get("/jobs?size=100")["items"]
    made = Counter(job["createdAt"] for job in jobs)
    assert set(made.values()) == {1}
    starts = sorted(float(words[3]) for words in ledger.lines("start"))
    assert starts[3] - starts[0] > 4


@pytest.fixture
def clocks() -> None:
    """Clocks can be set."""
    if not can_set_clocks():
        pytest.skip("needs libfaketime")


@pytest.mark.usefixtures("clocks")
@pytest.mark.parametrize("off", ["+3600", "-3600"])
def test_promise_11_a_clock_that_is_an_hour_off_does_no_harm(
    quick: Cluster, ledger: Ledger, off: str
) -> None:
    clock = clock_that_is(off)
    quick.add_coordinator()
    quick.add_coordinator(**clock)
    quick.add_worker()
    quick.add_worker(**clock)
    quick.wait_ready()
    wrong = quick.coordinators[1]
    work = "sleep 2; test $HAULIER_ATTEMPT -ge 2 || exit 1"
    job = ledger.job(ledger.task(work, retry={"limit": 1, "initialDelay": "1s"}), ledger.task())
    ids = [server.submit(job) for server in quick.coordinators for _ in range(6)]
    done = wrong.wait_jobs(ids, within=90)
    assert Counter(job["state"] for job in done.values()) == {"COMPLETED": 12}
    assert ledger.repeated == {}
    nodes = {task["nodeId"] for job in ids for task in wrong.job(job)["execution"]}
    assert len(nodes) == 2
    statuses = {node["name"]: node["status"] for node in wrong.get("/nodes")}
    assert set(statuses.values()) == {"UP"}, statuses


@long
@pytest.mark.usefixtures("clocks")
def test_promise_11_a_clock_that_jumps_does_no_harm(
    quick: Cluster, ledger: Ledger, tmp_path: Any
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
    server = quick.add_coordinator(**clock_of(offset))
    quick.add_worker()
    quick.wait_ready()
    for jump in ("+7200", "-7200", "+0"):
        ids = [server.submit(ledger.job(ledger.task("sleep 1"), ledger.task())) for _ in range(4)]
        ledger.wait_starts(1)
        offset.write_text(jump)
        done = server.wait_jobs(ids, within=60)
        assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}
