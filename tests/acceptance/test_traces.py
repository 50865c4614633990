"""One trace from a client through coordinator, broker and worker to the task, in a real cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.processes import Cluster, Standalone, wait_for
from tests.collector import Collector, collecting

pytestmark = [pytest.mark.rabbitmq, pytest.mark.mongodb]

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TELL = 'printf %s "$TRACEPARENT" > "$TORK_OUTPUT"'
JOB: dict[str, Any] = {
    "name": "traced",
    "tasks": [
        {"name": "one", "image": "none", "var": "one", "run": TELL},
        {"name": "two", "image": "none", "run": TELL + "; exit 3"},
    ],
}
HEADERS = {"Content-Type": "application/json", "traceparent": CLIENT}


def tracing(collector: Collector) -> dict[str, str]:
    return {
        "HAULIER_TELEMETRY_ENABLED": "true",
        "HAULIER_TELEMETRY_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def test_a_job_of_two_steps_is_one_trace(quick: Cluster) -> None:
    with collecting() as collector:
        quick.settings |= tracing(collector)
        server = quick.add_coordinator()
        quick.add_worker()
        quick.wait_ready()
        status, job = server.call("POST", "/jobs", json.dumps(JOB), HEADERS)
        assert status == 200, job
        ended = server.wait_job(job["id"])
        assert ended["state"] == "FAILED"

        def spans() -> list[Any]:
            found = [each for each in collector.spans() if each.trace_id.hex() == CLIENT[3:35]]
            return found if len(found) == 6 else []

        found = wait_for(spans, 20, "six spans of the client's trace")
        seen = server.get(f"/tasks/{ended['execution'][0]['id']}")["result"]
        quick.stop()
    by_name: dict[str, list[Any]] = {}
    for each in found:
        by_name.setdefault(each.name, []).append(each)
    assert {name: len(some) for name, some in by_name.items()} == {
        "POST /jobs": 1, "job": 1, "task": 2, "run task": 2,
    }  # fmt: skip
    (request,), (whole,) = by_name["POST /jobs"], by_name["job"]
    assert request.parent_span_id.hex() == CLIENT[36:52]
    assert whole.parent_span_id == request.span_id
    assert {each.parent_span_id for each in by_name["task"]} == {whole.span_id}
    tasks = {each.span_id: each for each in by_name["task"]}
    assert {each.parent_span_id for each in by_name["run task"]} == set(tasks)
    assert sorted(each.status.code for each in tasks.values()) == [0, 2]
    assert whole.status.code == 2
    for run in by_name["run task"]:
        task = tasks[run.parent_span_id]
        assert task.start_time_unix_nano <= run.start_time_unix_nano
        assert whole.start_time_unix_nano <= task.start_time_unix_nano
        assert task.end_time_unix_nano <= whole.end_time_unix_nano
    # The task itself can go on from its run.
    assert seen.split("-")[1] == CLIENT[3:35]
    assert seen.split("-")[2] in {each.span_id.hex() for each in by_name["run task"]}


def test_what_a_client_sends_comes_through_where_nothing_is_traced(shell: Standalone) -> None:
    sub = {
        "name": "above",
        "tasks": [
            {
                "name": "below",
                "subjob": {"name": "s", "tasks": JOB["tasks"][:1], "output": "{{ tasks.one }}"},
            }
        ],
    }
    for job in ({**JOB, "tasks": JOB["tasks"][:1]}, sub):
        _, made = shell.call("POST", "/jobs", json.dumps(job), HEADERS)
        assert shell.wait_job(made["id"])["execution"][0]["result"] == CLIENT
        _, other = shell.call("POST", f"/jobs/{made['id']}/rerun", "{}", HEADERS)
        assert shell.wait_job(other["id"])["execution"][0]["result"] == CLIENT
    own = {"name": "own", "image": "none", "run": TELL, "env": {"TRACEPARENT": "mine"}}
    _, made = shell.call("POST", "/jobs", json.dumps({"name": "own", "tasks": [own]}), HEADERS)
    assert shell.wait_job(made["id"])["execution"][0]["result"] == "mine"
