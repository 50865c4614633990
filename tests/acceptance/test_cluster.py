"""Coordinators and workers as processes of their own, that meet only at RabbitMQ and MongoDB."""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import Cluster, Coordinator, wait_for
from tests.acceptance.rabbit import Figures, figures_of, put
from tests.services.fixtures import Vhost

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


def pair(cluster: Cluster) -> tuple[Coordinator, Coordinator]:
    return cluster.add_coordinator(), cluster.add_coordinator()


def nodes_of(server: Coordinator) -> set[str]:
    """The names of the listed nodes."""
    return {node["name"] for node in server.get("/nodes")}


def workers_of(server: Coordinator) -> list[dict[str, Any]]:
    """The listed nodes that have slots."""
    return [node for node in server.get("/nodes") if node.get("queues")]


def shown_figures(server: Coordinator) -> Figures:
    return {
        queue["name"]: (queue["size"], queue.get("unacked"), queue["subscribers"])
        for queue in server.get("/queues")
        if not queue["name"].startswith("events-")
    }


def test_two_hundred_jobs_go_through_two_coordinators_and_three_workers(
    cluster: Cluster, ledger: Ledger, rabbitmq_vhost: Vhost
) -> None:
    first, second = pair(cluster)
    for _ in range(3):
        cluster.add_worker()
    cluster.wait_ready()
    job = ledger.job(*(ledger.task(name=f"t{n}", var=f"v{n}") for n in range(3)))
    ids = [(first, second)[n % 2].submit(job) for n in range(200)]
    done = first.wait_jobs(ids, within=150)
    assert Counter(job["state"] for job in done.values()) == {"COMPLETED": 200}
    assert len(ledger.starts) == len(ledger.ends) == 600
    assert ledger.repeated == {}
    tasks = [task for job_id in ids for task in second.job(job_id)["execution"]]
    by_node = Counter(task["nodeId"] for task in tasks)
    assert len(by_node) == 3, by_node
    names = {"coordinator-1", "coordinator-2", "worker-1", "worker-2", "worker-3"}
    for server in (first, second):
        assert nodes_of(server) == names

    def agree() -> bool:
        """In a quiet moment: RabbitMQ renews its figures every few seconds."""
        shown = shown_figures(first)
        quiet = shown.get("default") == (0, 0, 12)
        return quiet and shown == figures_of(rabbitmq_vhost) == shown_figures(second)

    wait_for(agree, 30, "figures of queues as RabbitMQ has them", every=0.5)
    assert shown_figures(first)["dead"][0] == 0


def test_cancel_at_one_coordinator_stops_what_the_other_had_started(
    cluster: Cluster, ledger: Ledger
) -> None:
    first, second = pair(cluster)
    cluster.add_worker()
    cluster.wait_ready()
    job_id = first.submit(ledger.job(ledger.task("sleep 600")))
    ledger.wait_starts(1)
    second.wait_state(job_id, "RUNNING")
    assert second.call("PUT", f"/jobs/{job_id}/cancel") == (200, {"status": "OK"})
    wait_for(lambda: not ledger.alive(), 2.0, "its process gone", every=0.02)
    assert first.job(job_id)["state"] == "CANCELLED"
    assert ledger.ends == {}


@pytest.mark.docker
@pytest.mark.xdist_group("docker")
def test_cancel_removes_a_container_within_two_seconds(
    cluster: Cluster, docker_engine: docker.DockerClient
) -> None:
    first, second = pair(cluster)
    cluster.add_worker(HAULIER_RUNTIME_TYPE="docker")
    cluster.wait_ready()
    task = {"name": "task", "image": "alpine:3.18.3", "run": "sleep 600"}
    job_id = first.submit({"name": "job", "tasks": [task]})

    def running() -> list[Any]:
        found = docker_engine.containers.list(ignore_removed=True)
        return [container for container in found if job_id in container.labels.values()]

    wait_for(running, 60, "its container")
    second.wait_state(job_id, "RUNNING")
    assert second.call("PUT", f"/jobs/{job_id}/cancel")[0] == 200
    wait_for(lambda: not running(), 2.0, "its container gone", every=0.05)


@pytest.mark.docker
@pytest.mark.xdist_group("docker")
def test_a_worker_that_no_coordinator_knows_keeps_no_container(
    cluster: Cluster, docker_engine: docker.DockerClient
) -> None:
    """Killed then, it would leave it for ever: nobody could say that its node is dead."""
    worker = cluster.add_worker(HAULIER_RUNTIME_TYPE="docker")
    worker.wait_ready()
    (runs,) = cluster.folder.glob("worker-1/runs/*")

    def made() -> list[Any]:
        found = docker_engine.containers.list(all=True, ignore_removed=True)
        return [container for container in found if runs.name in container.labels.values()]

    assert made() == []
    cluster.add_coordinator()
    wait_for(made, 60, "its warm sandboxes")


def test_two_workers_of_one_name_both_work(cluster: Cluster, ledger: Ledger) -> None:
    server = cluster.add_coordinator()
    for _ in range(2):
        cluster.add_worker(name="twin", HAULIER_WORKER_QUEUES_DEFAULT="1")
    cluster.wait_ready()
    ids = [server.submit(ledger.job(ledger.task("sleep 0.2"))) for _ in range(10)]
    done = server.wait_jobs(ids, within=60)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    assert ledger.repeated == {}
    names = [node["name"] for node in server.get("/nodes")]
    assert names.count("twin") == 2
    tasks = [task for job_id in ids for task in server.job(job_id)["execution"]]
    assert len({task["nodeId"] for task in tasks}) == 2


def test_a_queue_of_its_own_goes_to_the_worker_that_has_slots_in_it(
    cluster: Cluster, ledger: Ledger
) -> None:
    server = cluster.add_coordinator()
    cluster.add_worker()
    cluster.add_worker(HAULIER_WORKER_QUEUES_DEFAULT="0", HAULIER_WORKER_QUEUES_VIDEO="2")
    cluster.wait_ready()
    ids = [server.submit(ledger.job(ledger.task(queue="video"))) for _ in range(6)]
    done = server.wait_jobs(ids, within=60)
    assert {job["state"] for job in done.values()} == {"COMPLETED"}
    (video,) = (node["id"] for node in workers_of(server) if "video" in node["queues"])
    tasks = [task for job_id in ids for task in server.job(job_id)["execution"]]
    assert {task["nodeId"] for task in tasks} == {video}


def test_a_worker_says_how_it_is_on_its_health_port(cluster: Cluster) -> None:
    cluster.add_coordinator()
    worker = cluster.add_worker()
    cluster.wait_ready()
    with urllib.request.urlopen(
        f"http://localhost:{worker.health_port}/health", timeout=10
    ) as answer:
        assert json.loads(answer.read())["status"] == "UP"


def test_each_daemon_takes_all_descriptors_that_it_may_have_and_gives_tasks_what_it_found(
    cluster: Cluster,
) -> None:
    cluster.prefix = ["prlimit", "--nofile=512:4096"]
    server, worker = cluster.add_coordinator(), cluster.add_worker()
    cluster.wait_ready()
    for part in (server, worker):
        limits = Path(f"/proc/{part.process.pid}/limits").read_text()
        assert re.search(r"^Max open files +4096 +4096 ", limits, re.MULTILINE)
    task = {"name": "t", "image": "any", "run": "ulimit -Sn > $TORK_OUTPUT", "var": "v"}
    done = server.wait_job(server.submit({"name": "job", "tasks": [task]}))
    assert done["execution"][0]["result"].strip() == "512"


def test_a_drained_worker_takes_nothing_until_it_is_resumed(
    cluster: Cluster, ledger: Ledger
) -> None:
    server = cluster.add_coordinator()
    cluster.add_worker()
    cluster.wait_ready()
    wait_for(lambda: workers_of(server), 20, "the worker listed")
    node_id = workers_of(server)[0]["id"]
    assert server.call("PUT", f"/nodes/{node_id}/drain")[0] == 200
    wait_for(lambda: workers_of(server)[0]["status"] == "DRAINING", 20, "the worker draining")
    job_id = server.submit(ledger.job(ledger.task()))
    wait_for(lambda: shown_figures(server)["default"][0] == 1, 20, "its task waiting")
    assert ledger.starts == {}
    assert server.call("PUT", f"/nodes/{node_id}/resume")[0] == 200
    assert server.wait_job(job_id)["state"] == "COMPLETED"


def test_messages_that_nobody_can_read_end_in_dead_and_block_nothing(
    cluster: Cluster, ledger: Ledger, rabbitmq_vhost: Vhost
) -> None:
    server = cluster.add_coordinator()
    cluster.add_worker()
    cluster.wait_ready()
    newer = b'{"kind": "of-a-newer-version"}'
    bad = [
        b"this is no JSON",
        b"[]",
        json.dumps(
            {
                "kind": "ended",
                "taskId": "f" * 32,
                "jobId": "e" * 32,
                "run": 1,
                "nonce": "d" * 32,
                "nodeId": "c" * 32,
                "ok": True,
            }
        ).encode(),
    ]
    for queue in ("completed", "error", "heartbeat", "claims", "jobs", "progress", "logs"):
        for body in (*bad[:2], newer):
            put(rabbitmq_vhost, queue, body)
    put(rabbitmq_vhost, "completed", bad[2])
    job_id = server.submit(ledger.job(ledger.task()))
    assert server.wait_job(job_id, within=30)["state"] == "COMPLETED"
    # What a newer version sends again anyway (heartbeat, claims, progress) is passed over; the rest of it is left to a
    # newer coordinator for half a minute.
    wait_for(lambda: shown_figures(server)["dead"][0] == 19, 90, "the rest in dead", every=0.5)
