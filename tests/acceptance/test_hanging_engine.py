"""A Docker engine that hangs: it accepts requests and answers none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.acceptance.conftest import QUICK
from tests.acceptance.processes import Cluster, Server, Standalone, wait_for
from tests.services.engine_proxy import EngineProxy

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(300)]

IMAGE = "alpine:3.18.3"
PAST_ITS_LEASE = 20.0
"""Seconds: the lease of these tests is 17 s."""


@pytest.fixture
def proxy(docker_host: str) -> Iterator[EngineProxy]:
    with tempfile.TemporaryDirectory(prefix="hp", dir="/tmp") as folder:
        proxy = EngineProxy(Path(folder, "sock"), Path(docker_host.removeprefix("unix://")))
        with proxy.serving():
            yield proxy


@pytest.fixture
def server(proxy: EngineProxy, standalone: Callable[..., Standalone]) -> Iterator[Standalone]:
    yield standalone(
        docker=True,
        **QUICK,
        HAULIER_RUNTIME_DOCKER_HOST=proxy.host,
        HAULIER_RUNTIME_STOP_TIMEOUT="1s",
        HAULIER_WORKER_DRAIN_TIMEOUT="2s",
    )
    proxy.thaw()


def submitted(server: Server, run: str, **fields: object) -> str:
    task = {"name": "task", "image": IMAGE, "run": run, **fields}
    return server.submit({"name": "job", "tasks": [task]})


def worker_of(server: Server) -> Any:
    """Return the node of the worker: in a cluster, of the first one."""
    nodes = [node for node in server.get("/nodes") if node.get("queue")]
    return min(nodes, key=lambda node: str(node["name"]))


def wait_status(server: Server, status: str) -> None:
    wait_for(lambda: worker_of(server)["status"] == status, 30, f"the node {status}")


def statuses_past_its_lease(server: Server) -> set[str]:
    """Return the statuses that the worker's node has while it beats for longer than its lease."""
    first = worker_of(server)["lastHeartbeatAt"]
    statuses: set[str] = set()

    def past_its_lease() -> bool:
        node = worker_of(server)
        statuses.add(node["status"])
        return seconds_between(first, node["lastHeartbeatAt"]) > PAST_ITS_LEASE

    wait_for(past_its_lease, 60, "beats for longer than a lease")
    return statuses


def wait_begun(server: Server, job_id: str) -> None:
    wait_for(lambda: "begun" in server.log_of(job_id), 30, "the begin of the log")


def seconds_between(first: str, last: str) -> float:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def containers(engine: docker.DockerClient, job_id: str) -> list[str]:
    found = engine.containers.list(
        all=True, ignore_removed=True, filters={"label": f"haulier.job={job_id}"}
    )
    return [str(each.name) for each in found]


def wait_removed(engine: docker.DockerClient, job_id: str) -> None:
    wait_for(lambda: not containers(engine, job_id), 60, "no container")


def test_its_node_is_down_and_beats_and_its_run_stays_its_own(
    server: Standalone, proxy: EngineProxy
) -> None:
    job_id = submitted(server, "echo begun; sleep 6; echo -n done > $TORK_OUTPUT", var="v")
    wait_begun(server, job_id)
    proxy.freeze()
    wait_status(server, "DOWN")
    waits = submitted(server, "echo later")
    assert statuses_past_its_lease(server) == {"DOWN"}
    assert server.job(job_id)["execution"][0]["state"] == "RUNNING"
    assert server.job(waits)["execution"][0]["state"] in ("PENDING", "SCHEDULED")
    proxy.thaw()
    assert server.wait_job(job_id)["execution"][0]["result"] == "done"
    assert server.log_of(job_id) == "begun\n"
    assert server.wait_job(waits)["state"] == "COMPLETED"
    wait_status(server, "UP")


@pytest.mark.rabbitmq
@pytest.mark.mongodb
@pytest.mark.slow
def test_its_run_is_given_to_no_other_worker(
    quick: Cluster, proxy: EngineProxy, docker_host: str
) -> None:
    server = quick.add_coordinator()
    quick.add_worker(HAULIER_RUNTIME_TYPE="docker", HAULIER_RUNTIME_DOCKER_HOST=proxy.host)
    quick.wait_ready()
    job_id = submitted(server, "echo begun; sleep 6; echo -n done > $TORK_OUTPUT", var="v")
    wait_begun(server, job_id)
    quick.add_worker(HAULIER_RUNTIME_TYPE="docker", HAULIER_RUNTIME_DOCKER_HOST=docker_host)
    quick.wait_ready()
    proxy.freeze()
    wait_status(server, "DOWN")
    assert statuses_past_its_lease(server) == {"DOWN"}
    assert server.wait_job(submitted(server, "echo elsewhere"))["state"] == "COMPLETED"
    (task,) = server.job(job_id)["execution"]
    assert (task["state"], task.get("runs", [])) == ("RUNNING", [])
    assert task["nodeId"] == worker_of(server)["id"]
    proxy.thaw()
    assert server.wait_job(job_id)["execution"][0]["result"] == "done"
    assert server.log_of(job_id) == "begun\n"


def test_a_timeout_and_a_cancel_end_tasks_and_the_containers_go_when_it_answers(
    server: Standalone, proxy: EngineProxy, docker_engine: docker.DockerClient
) -> None:
    timed = submitted(server, "echo begun; sleep 300", timeout="8s")
    cancelled = submitted(server, "echo begun; sleep 300")
    wait_begun(server, cancelled)
    wait_begun(server, timed)
    proxy.freeze()
    assert server.call("PUT", f"/jobs/{cancelled}/cancel")[0] == 200
    done = server.wait_jobs([timed, cancelled], within=60)
    task_of = f"/tasks/{done[cancelled]['execution'][0]['id']}"
    wait_for(lambda: server.get(task_of)["state"] == "CANCELLED", 30, "its task cancelled")
    assert done[timed]["execution"][0]["error"] == "timed out after 8s"
    for job_id in (timed, cancelled):
        assert containers(docker_engine, job_id)
    proxy.thaw()
    for job_id in (timed, cancelled):
        wait_removed(docker_engine, job_id)
    assert server.wait_job(submitted(server, "echo again"))["state"] == "COMPLETED"


def test_the_timeout_of_a_task_that_is_being_made_ends_it(
    server: Standalone, proxy: EngineProxy, docker_engine: docker.DockerClient
) -> None:
    proxy.freeze()
    job_id = submitted(server, "echo never", timeout="2s")
    done = server.wait_job(job_id, within=60)
    assert done["execution"][0]["error"] == "timed out after 2s"
    proxy.thaw()
    wait_removed(docker_engine, job_id)
    assert server.wait_job(submitted(server, "echo again"))["state"] == "COMPLETED"


@pytest.mark.slow
def test_a_process_whose_engine_hangs_ends_when_it_is_asked_to(
    server: Standalone, proxy: EngineProxy
) -> None:
    wait_begun(server, submitted(server, "echo begun; sleep 300"))
    proxy.freeze()
    wait_status(server, "DOWN")
    assert server.terminate(within=100) == 0
