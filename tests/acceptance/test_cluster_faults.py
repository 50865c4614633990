"""A cluster while RabbitMQ, MongoDB, coordinators and workers go away and come back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymongo
import pytest
from pymongo.errors import PyMongoError

from devservices import mongodb_node
from devservices.mongodb_node import Node as MongoNode
from devservices.places import free_port
from devservices.rabbitmq_node import Node as RabbitNode
from tests.acceptance.ledger import Ledger
from tests.acceptance.long import long
from tests.acceptance.processes import SHELL, Cluster, Coordinator, Worker, wait_for
from tests.acceptance.rabbit import figures_of
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


def filled(cluster: Cluster, coordinators: int = 2, workers: int = 3) -> Coordinator:
    """Have a cluster of so many, ready; return its first coordinator."""
    for _ in range(coordinators):
        cluster.add_coordinator()
    for _ in range(workers):
        cluster.add_worker()
    cluster.wait_ready()
    return cluster.coordinators[0]


def states_of(server: Coordinator, ids: list[str], within: float) -> Counter[str]:
    """The states of jobs once all have ended."""
    return Counter(job["state"] for job in server.wait_jobs(ids, within).values())


def test_rabbitmq_restarts_while_fifty_jobs_run_and_none_runs_twice(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode
) -> None:
    server = filled(cluster)
    job = ledger.job(*(ledger.task("sleep 1", name=f"t{n}") for n in range(2)))
    ids = [server.submit(job) for _ in range(50)]
    ledger.wait_starts(12)
    own_broker.stop()
    own_broker.start()
    assert states_of(server, ids, 150) == {"COMPLETED": 50}
    assert ledger.repeated == {}
    assert len(ledger.starts) == len(ledger.ends) == 100


@long
def test_rabbitmq_is_killed_under_load(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode
) -> None:
    server = filled(cluster)
    job = ledger.job(*(ledger.task("sleep 0.5", name=f"t{n}") for n in range(2)))
    ids = [server.submit(job) for _ in range(30)]
    ledger.wait_starts(8)
    own_broker.kill()
    own_broker.start()
    assert states_of(server, ids, 150) == {"COMPLETED": 30}
    assert ledger.repeated == {}


def test_a_primary_that_steps_down_under_load_loses_nothing(
    cluster: Cluster, ledger: Ledger, own_store: MongoNode
) -> None:
    server = filled(cluster)
    job = ledger.job(*(ledger.task("sleep 0.3", name=f"t{n}") for n in range(3)))
    ids = [server.submit(job) for _ in range(30)]
    ledger.wait_starts(10)
    for _ in range(2):
        step_down(own_store)
        assert states_of(server, ids[:5], 60) == {"COMPLETED": 5}
    assert states_of(server, ids, 120) == {"COMPLETED": 30}
    assert ledger.repeated == {}


def step_down(node: MongoNode) -> None:
    """Have the primary give up for 3 s."""
    with pymongo.MongoClient[dict[str, object]](mongodb_node.url_of([node])) as client:
        try:
            client.admin.command("replSetStepDown", 3, force=True)
        except PyMongoError:
            return  # it closes the connections of those who ask


def test_a_killed_workers_tasks_run_again_elsewhere(quick: Cluster, ledger: Ledger) -> None:
    server = filled(quick, coordinators=2, workers=2)
    ids = [server.submit(ledger.job(ledger.task("sleep 6"))) for _ in range(8)]
    ledger.wait_starts(8)
    doomed = {str(process) for process in ledger.alive()}
    quick.workers[0].kill()
    began = time.monotonic()
    assert states_of(server, ids, 75) == {"COMPLETED": 8}
    assert time.monotonic() - began < 75
    assert len(ledger.repeated) == 4
    assert set(ledger.repeated.values()) == {2}
    assert set(ledger.ends.values()) == {1}, "processes of a killed worker die with it"
    assert doomed


def test_a_worker_that_is_killed_and_started_again_runs_its_tasks_again_at_once(
    cluster: Cluster, ledger: Ledger
) -> None:
    server = filled(cluster, coordinators=2, workers=1)
    ids = [server.submit(ledger.job(ledger.task("sleep 3"))) for _ in range(4)]
    ledger.wait_starts(4)
    (worker,) = cluster.workers
    worker.kill()
    worker.launch()
    wait_for(lambda: len(ledger.lines("start")) == 8, 10, "all begun again")
    assert states_of(server, ids, 30) == {"COMPLETED": 4}
    assert set(ledger.repeated.values()) == {2}
    assert set(ledger.ends.values()) == {1}
    (task,) = server.job(ids[0])["execution"]
    assert [run["why"] for run in task["runs"]] == ["its worker was killed, and started again"]


def test_a_prompt_is_in_the_log_though_its_worker_is_killed_right_after(cluster: Cluster) -> None:
    server, prompt = filled(cluster, coordinators=1, workers=1), "waiting for the database ... "
    script = f"printf '{prompt}'; exec sleep 600"
    job_id = server.submit({"name": "j", "tasks": [{"name": "t", "run": script}]})
    wait_for(lambda: server.log_of(job_id), 10, "its prompt", every=0.02)
    (worker,) = cluster.workers
    worker.kill()
    assert server.log_of(job_id) == prompt


def test_workers_that_share_a_data_folder_have_one_each_and_take_up_a_dead_ones(
    cluster: Cluster, ledger: Ledger
) -> None:
    shared = str(cluster.folder / "shared")
    cluster.add_coordinator()
    for _ in range(3):
        cluster.add_worker(HAULIER_WORKER_DATA=shared)
    cluster.wait_ready()
    server = cluster.coordinators[0]
    ids = [server.submit(ledger.job(ledger.task("sleep 2"))) for _ in range(24)]
    ledger.wait_starts(12)
    for doomed in cluster.workers[:2]:
        doomed.kill()
        doomed.launch()
    cluster.add_worker(HAULIER_WORKER_DATA=shared)
    assert states_of(server, ids, 60) == {"COMPLETED": 24}
    assert sorted(path.parent.name for path in Path(shared).glob("*/lock")) == ["1", "2", "3", "4"]
    assert max(ledger.repeated.values()) == 2


def test_a_frozen_worker_whose_data_folder_is_shared_keeps_its_run(
    quick: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    shared, gate = tmp_path / "shared", tmp_path / "gate"
    quick.settings |= {"HAULIER_WORKER_DATA": str(shared), "HAULIER_ENGINE_LEASE": "60s"}
    quick.add_coordinator()
    frozen = quick.add_worker(HAULIER_WORKER_QUEUES_DEFAULT="1")
    quick.wait_ready()
    server = quick.coordinators[0]
    held = server.submit(ledger.job(ledger.task(f"until [ -e {gate} ]; do sleep 0.1; done")))
    ledger.wait_starts(1)
    frozen.signal(signal.SIGSTOP)
    quick.add_worker().wait_ready()
    assert sorted(path.parent.name for path in shared.glob("*/lock")) == ["1", "2"]
    assert states_of(server, [server.submit(ledger.job(ledger.task()))], 30) == {"COMPLETED": 1}
    first_seen = beats(server)["worker-2"]
    wait_for(lambda: beats(server)["worker-2"] > first_seen, 30, "one more beat of the new one")
    assert server.job(held)["state"] == "RUNNING"
    frozen.signal(signal.SIGCONT)
    gate.touch()
    (task,) = server.wait_job(held)["execution"]
    assert (task["state"], task.get("runs", [])) == ("COMPLETED", [])
    assert ledger.repeated == {}


def beats(server: Coordinator) -> dict[str, str]:
    """Return when each node beat last, by name."""
    return {node["name"]: node["lastHeartbeatAt"] for node in server.get("/nodes")}


def test_a_rolling_restart_of_everything_repeats_nothing(cluster: Cluster, ledger: Ledger) -> None:
    filled(cluster, coordinators=2, workers=3)
    done = threading.Event()
    ids: list[str] = []
    job = ledger.job(*(ledger.task("sleep 0.3", name=f"t{n}") for n in range(3)))

    def submit() -> None:
        while not done.is_set():
            for server in cluster.coordinators:
                try:
                    ids.append(server.submit(job))
                except (OSError, AssertionError):
                    continue  # it is being restarted: nothing was answered
            done.wait(0.5)

    submitting = threading.Thread(target=submit)
    submitting.start()
    try:
        for part in (*cluster.workers, *cluster.coordinators):
            assert part.terminate() == 0, part.text()
            part.start()
    finally:
        done.set()
        submitting.join()
    server = cluster.coordinators[0]
    states = states_of(server, ids, 120)
    assert states == {"COMPLETED": len(ids)}
    assert ledger.repeated == {}
    assert {len(server.job(job_id)["execution"]) for job_id in ids} == {3}


def test_a_worker_that_drains_hands_back_what_outlasts_the_grace(
    cluster: Cluster, ledger: Ledger
) -> None:
    cluster.settings["HAULIER_WORKER_DRAIN_TIMEOUT"] = "2s"
    server = filled(cluster, coordinators=1, workers=1)
    job_id = server.submit(ledger.job(ledger.task("sleep 15")))
    ledger.wait_starts(1)
    began = time.monotonic()
    assert cluster.workers[0].terminate() == 0
    assert time.monotonic() - began < 15
    assert ledger.alive() == []
    cluster.add_worker().wait_ready()
    job = server.wait_job(job_id, within=60)
    assert job["state"] == "COMPLETED"
    assert len(job["execution"]) == 1, "handing back costs no attempt"
    assert ledger.starts.total() == 2


def test_a_worker_that_drains_while_nobody_answers_it_gives_its_deliveries_back(
    cluster: Cluster, ledger: Ledger, rabbitmq_vhost: Vhost
) -> None:
    server = filled(cluster, coordinators=1, workers=0)
    ids = [server.submit(ledger.job(ledger.task())) for _ in range(4)]
    wait_for(lambda: figures(server, "default")[0] == 4, 20, "four tasks in their queue")
    server.kill()
    worker = cluster.add_worker()
    worker.wait_ready()
    wait_for(lambda: figures_of(rabbitmq_vhost)["default"][1] == 4, 20, "its four deliveries")
    began = time.monotonic()
    assert worker.terminate(30) == 0
    assert time.monotonic() - began < 10
    assert ledger.starts == {}
    server.start()
    cluster.add_worker().wait_ready()
    assert states_of(server, ids, 20) == {"COMPLETED": 4}
    assert ledger.repeated == {}


@long
def test_a_worker_that_drains_without_a_broker_ends_all_the_same(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode
) -> None:
    cluster.settings["HAULIER_WORKER_DRAIN_TIMEOUT"] = "2s"
    server = filled(cluster, coordinators=1, workers=1)
    server.submit(ledger.job(ledger.task("sleep 600")))
    ledger.wait_starts(1)
    own_broker.kill()
    assert cluster.workers[0].terminate(50) == 0
    assert ledger.alive() == []


@long
def test_a_coordinator_stops_in_order_without_store_or_broker(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode, own_store: MongoNode
) -> None:
    server = filled(cluster, coordinators=2, workers=1)
    for _ in range(20):
        server.submit(ledger.job(ledger.task("sleep 1"), ledger.task("sleep 1")))
    ledger.wait_starts(4)
    own_store.kill()
    assert cluster.coordinators[0].terminate(40) == 0
    own_broker.kill()
    assert cluster.coordinators[1].terminate(40) == 0


def test_a_drained_worker_holds_no_delivery_back(cluster: Cluster, ledger: Ledger) -> None:
    cluster.settings["HAULIER_WORKER_QUEUES_DEFAULT"] = "1"
    server = filled(cluster, coordinators=1, workers=1)
    first = server.submit(ledger.job(ledger.task("sleep 4")))
    ledger.wait_starts(1)
    (node,) = {task["nodeId"] for task in server.job(first)["execution"]}
    assert server.call("PUT", f"/nodes/{node}/drain")[0] == 200
    wait_for(lambda: statuses(server)[node] == "DRAINING", 10, "the worker draining")
    second = server.submit(ledger.job(ledger.task()))
    assert server.wait_job(first)["state"] == "COMPLETED"
    wait_for(lambda: figures(server, "default") == (1, 0), 20, "the second task in its queue")
    cluster.add_worker().wait_ready()
    assert server.wait_job(second, within=20)["state"] == "COMPLETED"


def figures(server: Coordinator, name: str) -> tuple[int, int]:
    """What is ready in a queue, and what is not acknowledged."""
    (queue,) = (queue for queue in server.get("/queues") if queue["name"] == name)
    return queue["size"], queue["unacked"]


def statuses(server: Coordinator) -> dict[str, str]:
    """The status of each node."""
    return {node["id"]: node["status"] for node in server.get("/nodes")}


def test_a_second_signal_stops_at_once(cluster: Cluster, ledger: Ledger) -> None:
    server = filled(cluster, coordinators=1, workers=1)
    server.submit(ledger.job(ledger.task("sleep 600")))
    ledger.wait_starts(1)
    worker = cluster.workers[0]
    worker.signal(signal.SIGTERM)
    wait_for(lambda: "draining" in worker.text(), 10, "the worker draining")
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(3) == 130
    wait_for(lambda: not ledger.alive(), 5, "its processes gone with it")


@pytest.mark.parametrize("setting", ["RABBITMQ_URL", "MONGODB_URL"])
def test_what_is_not_there_at_the_start_is_waited_for_until_asked_to_stop(
    cluster: Cluster, setting: str
) -> None:
    if setting == "RABBITMQ_URL":
        cluster.settings["HAULIER_BROKER_RABBITMQ_URL"] = f"amqp://g:g@127.0.0.1:{free_port()}/"
    else:
        url = f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0"
        cluster.settings["HAULIER_DATASTORE_MONGODB_URL"] = url
    parts: list[Coordinator | Worker] = [cluster.add_coordinator()]
    if setting == "RABBITMQ_URL":
        parts.append(cluster.add_worker())
    for part in parts:
        wait_for(lambda part=part: "waiting for" in part.text(), 30, "what it waits for")  # type: ignore[misc]
        assert part.process.poll() is None
        began = time.monotonic()
        assert part.terminate(10) == 0
        assert time.monotonic() - began < 5


@long
def test_what_comes_late_is_taken_up(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode, own_store: MongoNode
) -> None:
    own_broker.stop()
    own_store.stop()
    server = cluster.add_coordinator()
    worker = cluster.add_worker()
    for part in (server, worker):
        wait_for(lambda part=part: "waiting for" in part.text(), 30, "what it waits for")  # type: ignore[misc]
    own_store.start()
    own_broker.start()
    cluster.wait_ready()
    assert server.wait_job(server.submit(ledger.job(ledger.task())))["state"] == "COMPLETED"


def test_without_the_store_every_endpoint_answers_503(
    cluster: Cluster, ledger: Ledger, own_store: MongoNode
) -> None:
    server = filled(cluster, coordinators=1, workers=1)
    job_id = server.submit(ledger.job(ledger.task("sleep 20")))
    ledger.wait_starts(1)
    server.wait_state(job_id, "RUNNING")
    own_store.kill()
    body = '{"name": "job", "tasks": [{"name": "task", "image": "any"}]}'
    calls = [
        ("POST", "/jobs", body),
        ("PUT", f"/jobs/{job_id}/cancel", None),
        *(("GET", path, None) for path in ("/health", "/jobs", f"/jobs/{job_id}", "/nodes")),
        *(("GET", path, None) for path in ("/queues", "/metrics", "/scheduled-jobs")),
    ]

    def answered(call: tuple[str, str, str | None]) -> tuple[int, str]:
        status, answer = server.call(*call, {"Content-Type": "application/json"})
        return status, answer["message"]

    with ThreadPoolExecutor(len(calls)) as threads:
        answers = list(threads.map(answered, calls))
    assert {status for status, _ in answers} == {503}, answers
    assert all("datastore" in message for _, message in answers), answers
    assert len(ledger.alive()) == 1, "the worker goes on"
    own_store.start()
    assert server.wait_job(job_id, within=90)["state"] == "COMPLETED"
    assert ledger.repeated == {}


def test_without_the_broker_only_health_and_queues_answer_503(
    cluster: Cluster, ledger: Ledger, own_broker: RabbitNode
) -> None:
    server = filled(cluster, coordinators=1, workers=1)
    running = server.submit(ledger.job(ledger.task("sleep 8")))
    doomed = server.submit(ledger.job(ledger.task("sleep 600")))
    ledger.wait_starts(2)
    own_broker.kill()
    for path in ("/health", "/queues"):
        status, body = server.call("GET", path)
        assert status == 503, (path, body)
        assert body["message"]
    job_id = server.submit(ledger.job(ledger.task()))
    assert server.call("PUT", f"/jobs/{doomed}/cancel")[0] == 200
    for path in ("/jobs", "/nodes", "/metrics", f"/jobs/{job_id}", f"/jobs/{running}/log"):
        assert server.call("GET", path)[0] == 200, path
    own_broker.start()
    assert states_of(server, [job_id, running], 90) == {"COMPLETED": 2}
    wait_for(lambda: not ledger.alive(), 60, "what was cancelled meanwhile stopped")
    assert ledger.repeated == {}
    assert server.call("GET", "/health")[0] == 200


@pytest.mark.parametrize(
    ("setting", "url", "said"),
    [
        ("HAULIER_BROKER_RABBITMQ_URL", "amqp://guest:wrong@{}", "password"),
        ("HAULIER_DATASTORE_MONGODB_URL", "nonsense://here", "datastore.mongodb"),
    ],
)
def test_what_can_not_work_stops_the_start_with_a_clear_message(
    cluster: Cluster, setting: str, url: str, said: str
) -> None:
    cluster.settings[setting] = url.format(cluster.settings[setting].partition("@")[2])
    coordinator = cluster.add_coordinator()
    assert coordinator.process.wait(30) == 2
    assert said in coordinator.text()
    assert "wrong" not in coordinator.text()
    assert "Traceback" not in coordinator.text()


def test_a_file_an_environment_and_flags_start_a_cluster_alike(
    cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    server = cluster.add_coordinator()
    flat = {**SHELL, **cluster.settings}
    keys = {name: key_of(name) for name in flat}
    file = tmp_path / "haulier.toml"
    lines = [f"{keys[name]} = {quoted(value)}" for name, value in flat.items()]
    file.write_text("\n".join([*lines, 'worker.name = "by-file"', "worker.queues.default = 2"]))
    by_file = plain_worker(tmp_path / "by-file", {}, ["--config", str(file)])
    flags = [flag for name, value in flat.items() for flag in ("--set", f"{keys[name]}={value}")]
    flags += ["--set", "worker.name=by-flag", "--set", "worker.queues.default=2"]
    by_flag = plain_worker(tmp_path / "by-flag", {}, flags)
    cluster.workers += [by_file, by_flag]
    cluster.add_worker(name="by-environment", HAULIER_WORKER_QUEUES_DEFAULT="2")
    cluster.wait_ready()
    names = {"coordinator-1", "by-file", "by-flag", "by-environment"}
    wait_for(lambda: {node["name"] for node in server.get("/nodes")} == names, 20, "all four")
    ids = [server.submit(ledger.job(ledger.task("sleep 0.5"))) for _ in range(24)]
    assert states_of(server, ids, 60) == {"COMPLETED": 24}
    tasks = [task for job_id in ids for task in server.job(job_id)["execution"]]
    assert len({task["nodeId"] for task in tasks}) == 3
    shown = subprocess.run(
        [Path(sys.executable).parent / "haulier", "config", "--config", file],
        capture_output=True,
        text=True,
        check=True,
        env={"HAULIER_ENGINE_BEAT": "4s", "PATH": "/usr/bin:/bin"},
    ).stdout
    assert f"# {file}" in shown
    assert "# environment HAULIER_ENGINE_BEAT" in shown
    assert "# default" in shown


def plain_worker(folder: Path, settings: dict[str, str], flags: list[str]) -> Worker:
    """Launch a worker by flags alone, on data and a port of its own."""
    folder.mkdir()
    made = Worker(folder, "unused", settings)
    own = ["--set", f"worker.data={folder}", "--set", "worker.address=localhost:0"]
    made._command = ["worker", *flags, *own]
    made._environment = {
        name: value for name, value in made._environment.items() if not name.startswith("HAULIER_")
    }
    made.launch()
    return made


def key_of(name: str) -> str:
    """The setting that an environment variable names."""
    words = name.removeprefix("HAULIER_").lower().split("_")
    joined = ".".join(words)
    for word in ("management_url", "ignore_image", "reconnect_cap"):
        joined = joined.replace(word.replace("_", "."), word)
    return joined


def quoted(value: str) -> str:
    return value if value in ("true", "false") else f'"{value}"'
