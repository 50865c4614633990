"""Each example of the REST API document that the project was asked to implement, sent with its own curl."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import SHELL, Standalone

YAML_JOB = """
name: sample job
tasks:
  - name: sample task
    image: ubuntu:mantic
    run: echo hello world
"""

JSON_JOB = r"""{
  "name": "hello job",
  "tasks": [{
     "name": "say hello",
      "image": "ubuntu:mantic",
      "run": "echo -n hello world\n"
  }]
}"""

HEX_ID = re.compile(r"[0-9a-f]{32}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    process = Standalone(tmp_path_factory.mktemp("seed"), **SHELL)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def curl(server: Standalone) -> Callable[..., tuple[int, Any]]:
    """Runs curl as the document writes it, on the server's address; gives the status and the JSON."""

    def run(*arguments: str, path: str) -> tuple[int, Any]:
        command = ["curl", "-s", "-w", "\n%{http_code}", *arguments, server.url + path]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        body, _, status = answer.stdout.rpartition("\n")
        return int(status), json.loads(body)

    return run


Curl = Callable[..., tuple[int, Any]]


def submit_yaml(curl: Curl) -> Any:
    status, job = curl(
        "-X", "POST", "-H", "Content-Type: text/yaml", "-d", YAML_JOB, path="/jobs"
    )  # fmt: skip
    assert status == 200
    return job


def assert_times(found: dict[str, Any], *names: str) -> None:
    for name in names:
        assert TIME.fullmatch(found[name]), (name, found[name])


def test_health_check(curl: Curl) -> None:
    status, health = curl(path="/health")
    assert status == 200
    assert health["status"] == "UP"


def test_submit_a_job_in_yaml(curl: Curl) -> None:
    job = submit_yaml(curl)
    assert HEX_ID.fullmatch(job["id"])
    assert (job["name"], job["state"], job["taskCount"]) == ("sample job", "PENDING", 1)
    assert_times(job, "createdAt")


def test_submit_a_job_in_json(curl: Curl) -> None:
    status, job = curl(
        "-X", "POST", "-H", "Content-Type: application/json", "-d", JSON_JOB, path="/jobs"
    )  # fmt: skip
    assert status == 200
    assert HEX_ID.fullmatch(job["id"])
    assert job["name"] == "hello job"


def test_list_jobs(curl: Curl, server: Standalone) -> None:
    server.wait_job(submit_yaml(curl)["id"])
    status, page = curl(path="/jobs?page=1&size=1&q=sample")
    assert status == 200
    assert (page["number"], page["size"], len(page["items"])) == (1, 1, 1)
    assert isinstance(page["totalPages"], int)
    [job] = page["items"]
    assert HEX_ID.fullmatch(job["id"])
    assert (job["name"], job["state"]) == ("sample job", "COMPLETED")
    assert_times(job, "createdAt", "startedAt", "completedAt")


def test_get_job_details(curl: Curl, server: Standalone) -> None:
    job_id = server.wait_job(submit_yaml(curl)["id"])["id"]
    status, job = curl(path=f"/jobs/{job_id}")
    assert status == 200
    assert (job["id"], job["name"], job["state"]) == (job_id, "sample job", "COMPLETED")
    assert_times(job, "createdAt", "startedAt", "completedAt")
    assert job["tasks"] == [
        {"name": "sample task", "run": "echo hello world", "image": "ubuntu:mantic"}
    ]
    assert (job["position"], job["taskCount"]) == (2, 1)
    [task] = job["execution"]
    assert HEX_ID.fullmatch(task["id"])
    assert task["jobId"] == job_id
    assert (task["position"], task["name"], task["state"]) == (1, "sample task", "COMPLETED")
    assert_times(task, "createdAt", "scheduledAt", "startedAt", "completedAt")
    assert (task["run"], task["image"]) == ("echo hello world", "ubuntu:mantic")
    assert task["queue"] == "default"
    assert task["nodeId"] in {node["id"] for node in server.get("/nodes")}


def test_cancel_a_running_job(curl: Curl, server: Standalone) -> None:
    job = YAML_JOB.replace("echo hello world", "sleep 60")
    job_id = server.submit(job)
    server.wait_state(job_id, "RUNNING")
    assert curl("-X", "PUT", path=f"/jobs/{job_id}/cancel") == (200, {"status": "OK"})
    assert curl("-X", "PUT", path=f"/jobs/{job_id}/cancel") == (
        400,
        {"message": "job is not running"},
    )


def test_restart_a_failed_or_cancelled_job(curl: Curl, server: Standalone) -> None:
    job_id = server.submit(YAML_JOB.replace("echo hello world", "exit 1"))
    assert server.wait_job(job_id)["state"] == "FAILED"
    assert curl("-X", "PUT", path=f"/jobs/{job_id}/restart") == (200, {"status": "OK"})
    completed = server.wait_job(submit_yaml(curl)["id"])["id"]
    assert curl("-X", "PUT", path=f"/jobs/{completed}/restart") == (
        400,
        {"message": "job is COMPLETED and can not be restarted"},
    )


def test_list_nodes(curl: Curl) -> None:
    deadline = time.monotonic() + 20
    while len(nodes := curl(path="/nodes")[1]) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    by_name = {node["name"]: node for node in nodes}
    assert set(by_name) == {"Coordinator", "Worker"}
    for node in nodes:
        assert_times(node, "startedAt", "lastHeartbeatAt")
        assert isinstance(node["cpuPercent"], float)
        assert node["status"] == "UP"
        assert node["hostname"]
        assert node["version"]
    worker = by_name["Worker"]
    assert worker["queue"] == f"x-{worker['id']}"
    assert "queue" not in by_name["Coordinator"]


def test_list_queues(curl: Curl) -> None:
    status, queues = curl(path="/queues")
    assert status == 200
    assert {"default", "jobs", "logs"} <= {queue["name"] for queue in queues}
    for queue in queues:
        assert set(queue) == {"name", "size", "subscribers", "unacked"}
        assert all(isinstance(queue[name], int) for name in ("size", "subscribers", "unacked"))
    default = next(queue for queue in queues if queue["name"] == "default")
    assert default["subscribers"] == 4


def bad(curl: Curl, body: str, kind: str | None = "text/yaml") -> tuple[int, str]:
    header = ["-H", f"Content-Type: {kind}"] if kind else ["-H", "Content-Type:"]
    status, answer = curl("-X", "POST", *header, "--data-binary", body, path="/jobs")
    return status, answer["message"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("name: [", 400, "not YAML"),
        ("just a text", 400, "expected a job (a map"),
        ("name: x\ntasks: []", 400, "tasks"),
        ("name: x\ntasks:\n  - name: t\n    runn: echo", 400, 'tasks[0].runn: unknown field, did you mean "run"?'),
        ("name: x\ntasks:\n  - name: t\n    run: echo\n    priority: high", 400, "tasks[0].priority"),
    ],
)  # fmt: skip
def test_a_bad_document_is_told_with_the_path_to_its_fault(
    curl: Curl, body: str, status: int, words: str
) -> None:
    found, message = bad(curl, body)
    assert found == status
    assert words in message


def test_other_bad_requests(curl: Curl, tmp_path: Path) -> None:
    assert bad(curl, YAML_JOB, None)[0] == 415
    assert bad(curl, YAML_JOB, "text/plain")[0] == 415
    large = tmp_path / "large.yaml"
    large.write_text("name: x\ndescription: " + "y" * 10_000_000)
    assert bad(curl, f"@{large}")[0] == 413
    assert curl(path="/jobs/nosuchjob")[0] == 404
    assert curl(path="/tasks/nosuchtask")[0] == 404
    status, answer = curl(path="/jobs?page=x")
    assert status == 400
    assert "page" in answer["message"]
