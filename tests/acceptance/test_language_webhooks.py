"""Webhooks and events: what is told, when, to whom, signed how, and tried again until it is heard."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.acceptance.definitions import each, job, named, parallel, says, seconds, subjob, task
from tests.acceptance.processes import Standalone, wait_for
from tests.acceptance.receiving import Received, Receiver, receiver
from tests.acceptance.streams import streaming

pytestmark = pytest.mark.xdist_group("shell")

Make = Callable[..., Standalone]


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def states(requests: list[Received]) -> list[str]:
    """Return the states that were told, each once, in the order of arrival."""
    return list(dict.fromkeys(request.body["state"] for request in requests))


def run_told(server: Standalone, hooks: Receiver, definition: dict[str, Any], most: int) -> Any:
    """Run a job to its end, and wait until so many requests have come."""
    done = server.wait_job(server.submit(definition))
    wait_for(lambda: len(hooks.requests) >= most, 20, f"{most} requests")
    return done


def quiet(server: Standalone, hooks: Receiver) -> None:
    """Return once a webhook of a later job has come: what was to come before it has come."""
    server.submit(
        job(task(), webhooks=[{"url": hooks.url + "/later", "if": "job.state == 'COMPLETED'"}])
    )
    wait_for(lambda: hooks.at("/later"), 20, "the later webhook")


# --- what is told -------------------------------------------------------------------------------------------------


def test_a_job_tells_of_its_states_with_its_summary(shell: Standalone, hooks: Receiver) -> None:
    definition = job(
        says("r", var="v"),
        name="told",
        description="d",
        tags=["t"],
        inputs={"a": "1"},
        output="{{ tasks.v }}",
        webhooks=[{"url": hooks.url + "/job"}],
    )
    done = run_told(shell, hooks, definition, 3)
    quiet(shell, hooks)
    told = hooks.at("/job")
    assert sorted(states(told)) == ["COMPLETED", "PENDING", "RUNNING"]
    assert len(told) == 3
    (last,) = (request.body for request in told if request.body["state"] == "COMPLETED")
    assert (last["id"], last["name"], last["description"]) == (done["id"], "told", "d")
    assert (last["tags"], last["inputs"], last["result"]) == (["t"], {"a": "1"}, "r")
    assert (last["position"], last["taskCount"], last["progress"]) == (2, 1, 100)
    assert last["createdBy"]["username"] == "guest"
    assert seconds(last["completedAt"]) >= seconds(last["createdAt"])
    assert "tasks" not in last
    assert told[0].headers["content-type"].startswith("application/json")


def test_tasks_tell_of_their_states_skipped_ones_and_children_too(
    shell: Standalone, hooks: Receiver
) -> None:
    definition = job(
        says("out", name="runs", var="v"),
        task(name="skipped", **{"if": "false"}),
        parallel(task(name="child"), task(name="skipped child", **{"if": "false"})),
        task("exit 4", name="fails"),
        webhooks=[{"url": hooks.url + "/task", "event": "task.StateChange"}],
    )
    done = run_told(shell, hooks, definition, 13)
    quiet(shell, hooks)
    by_name = {
        name: sorted(states([r for r in hooks.at("/task") if r.body["name"] == name]))
        for name in ("runs", "skipped", "parallel", "child", "skipped child", "fails")
    }
    ran = ["COMPLETED", "RUNNING", "SCHEDULED"]
    assert by_name == {
        "runs": ran,
        "skipped": ["SKIPPED"],
        "parallel": ["COMPLETED", "RUNNING"],
        "child": ran,
        "skipped child": ["SKIPPED"],
        "fails": ["FAILED", "RUNNING", "SCHEDULED"],
    }
    bodies = [request.body for request in hooks.at("/task")]
    assert {body["jobId"] for body in bodies} == {done["id"]}
    (last,) = (b for b in bodies if (b["name"], b["state"]) == ("runs", "COMPLETED"))
    assert (last["result"], last["var"], last["position"]) == ("out", "v", 1)
    (failed,) = (b for b in bodies if (b["name"], b["state"]) == ("fails", "FAILED"))
    assert "4" in failed["error"]
    (child,) = (b for b in bodies if (b["name"], b["state"]) == ("child", "COMPLETED"))
    assert child["parentId"] == named(done, "parallel")[0]["id"]


def test_a_cancel_and_a_restart_are_told(shell: Standalone, hooks: Receiver) -> None:
    definition = job(
        task("sleep 60"),
        webhooks=[
            {"url": hooks.url + "/job"},
            {"url": hooks.url + "/task", "event": "task.StateChange"},
        ],
    )
    job_id = shell.submit(definition)
    shell.wait_state(job_id, "RUNNING")
    shell.call("PUT", f"/jobs/{job_id}/cancel")
    wait_for(lambda: "CANCELLED" in states(hooks.at("/job")), 20, "the cancel")
    wait_for(lambda: "CANCELLED" in states(hooks.at("/task")), 20, "the task's end")
    shell.call("PUT", f"/jobs/{job_id}/restart")
    wait_for(
        lambda: [r.body["state"] for r in hooks.at("/job")].count("RUNNING") == 2, 20, "the restart"
    )
    shell.call("PUT", f"/jobs/{job_id}/cancel")


def test_progress_is_told_to_those_who_asked(shell: Standalone, hooks: Receiver) -> None:
    script = 'echo 30 > "$TORK_PROGRESS"; sleep 1.5; echo 60 > "$TORK_PROGRESS"; sleep 1.5'
    definition = job(
        task(script),
        task(),
        webhooks=[
            {"url": hooks.url + "/job", "event": "job.Progress"},
            {"url": hooks.url + "/task", "event": "task.Progress"},
        ],
    )
    run_told(shell, hooks, definition, 6)
    quiet(shell, hooks)
    assert {request.body["progress"] for request in hooks.at("/task")} >= {30, 60}
    assert {request.body["progress"] for request in hooks.at("/job")} >= {15, 30, 50, 100}


def test_a_subjob_tells_by_webhooks_of_its_own(shell: Standalone, hooks: Receiver) -> None:
    inner = subjob(
        task(),
        inputs={"n": "1"},
        webhooks=[
            {
                "url": hooks.url + "/{{ inputs.path }}",
                "headers": {"X-Parent": "{{ job.name }}-{{ secrets.s }}"},
                "if": "job.state == 'COMPLETED'",
            }
        ],
    )
    definition = job(inner, name="above", inputs={"path": "sub"}, secrets={"s": "hidden-value"})
    done = run_told(shell, hooks, definition, 1)
    (told,) = hooks.at("/sub")
    assert told.headers["x-parent"] == "above-hidden-value"
    assert told.body["parentId"] == named(done, "subjob")[0]["id"]
    assert told.body["id"] != done["id"]


# --- if -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("job.state == 'COMPLETED'", ["COMPLETED"]),
        ("job.State == 'COMPLETED'", ["COMPLETED"]),
        ("{{ job.State == 'COMPLETED' && job.ID == job.id && job.TaskCount == 1 }}", ["COMPLETED"]),
        ("job.Progress == 100", ["COMPLETED"]),
        ("job.Inputs.a == '1' && job.CreatedBy.username == 'guest'",
         ["COMPLETED", "PENDING", "RUNNING"]),
        ("true", ["COMPLETED", "PENDING", "RUNNING"]),
        ("false", []),
        ("'true'", []),
        ("job.name + 1", []),
        ("job", []),
        ("nil", []),
    ],
)  # fmt: skip
def test_a_jobs_webhook_is_sent_only_where_its_if_is_true(
    shell: Standalone, hooks: Receiver, condition: str, told: list[str]
) -> None:
    hook = {"url": hooks.url + "/job", "if": condition}
    done = shell.wait_job(shell.submit(job(task(), inputs={"a": "1"}, webhooks=[hook])))
    assert done["state"] == "COMPLETED"
    quiet(shell, hooks)
    wait_for(lambda: len(hooks.at("/job")) >= len(told), 10, "all that were to come")
    assert sorted(states(hooks.at("/job"))) == told


@pytest.mark.parametrize(
    "condition",
    [
        "task.state == 'RUNNING' && job.state in ['RUNNING', 'SCHEDULED']",
        "task.State == 'RUNNING' && task.JobID == job.ID && task.jobId == job.id",
        "task.Name == 'task' && task.State == 'RUNNING' && task.ID == task.id",
    ],
)
def test_a_tasks_webhook_sees_task_and_job(
    shell: Standalone, hooks: Receiver, condition: str
) -> None:
    hook = {"url": hooks.url + "/task", "event": "task.StateChange", "if": condition}
    run_told(shell, hooks, job(task(), webhooks=[hook]), 1)
    quiet(shell, hooks)
    assert states(hooks.at("/task")) == ["RUNNING"]


# --- signature ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("plain text secret", b"plain text secret"),
        ("whsec_" + base64.b64encode(b"twenty-four bytes of it!").decode(), b"twenty-four bytes of it!"),
    ],
)  # fmt: skip
def test_a_delivery_is_signed_as_standard_webhooks_say(
    shell: Standalone, hooks: Receiver, secret: str, key: bytes
) -> None:
    hook = {"url": hooks.url + "/job", "secret": secret, "if": "job.state == 'COMPLETED'"}
    done = run_told(shell, hooks, job(task(), webhooks=[hook]), 1)
    (told,) = hooks.at("/job")
    stamp = told.headers["webhook-timestamp"]
    signed = f"{told.headers['webhook-id']}.{stamp}.".encode() + told.raw
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert told.headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(stamp) - time.time()) < 60
    assert secret not in str(done)


# --- tried again --------------------------------------------------------------------------------------------------


def test_a_delivery_is_tried_again_with_growing_delays(shell: Standalone, hooks: Receiver) -> None:
    answers = {"/500": [500, 503, 200], "/429": [429, 200], "/400": [400], "/302": [302]}
    hooks.answer = lambda request, before: answers.get(request.path, [200] * 9)[before]
    made = [{"url": hooks.url + path, "if": "job.state == 'COMPLETED'"} for path in answers]
    shell.wait_job(shell.submit(job(task(), webhooks=made)))
    wait_for(lambda: len(hooks.at("/500")) == 3, 60, "the third try")
    assert {path: len(hooks.at(path)) for path in answers} == {
        path: len(codes) for path, codes in answers.items()
    }
    first, second, third = hooks.at("/500")
    assert first.headers["webhook-id"] == third.headers["webhook-id"]
    assert first.raw == third.raw
    assert second.at - first.at < third.at - second.at


def test_a_job_that_deletes_itself_goes_when_its_receiver_has_heard(
    shell: Standalone, hooks: Receiver
) -> None:
    database = sqlite3.connect(shell.log.parent / "haulier.db", check_same_thread=False)
    answers: list[int] = []

    def is_kept(job_id: str) -> bool:
        return bool(database.execute("SELECT 1 FROM jobs WHERE id = ?", [job_id]).fetchall())

    def answer(request: Received, _: int) -> int:
        job_id = request.body["id"]
        marked = shell.call("GET", f"/jobs/{job_id}")[0] == 404
        assert is_kept(job_id)
        answers.append(200 if marked else 503)
        return answers[-1]

    hooks.answer = answer
    hook = {"url": hooks.url + "/job", "if": "job.state == 'COMPLETED'"}
    job_id = shell.submit(job(task(), webhooks=[hook], autoDelete={"after": "1s"}))
    with closing(database):
        wait_for(lambda: not is_kept(job_id), 60, "the job gone")
    assert answers == [*[503] * (len(answers) - 1), 200]
    assert len(answers) > 1


def test_a_delivery_survives_a_crash(standalone: Make, hooks: Receiver) -> None:
    server = standalone()
    hooks.answer = lambda _request, before: 200 if before else 500
    hook = {"url": hooks.url + "/job", "if": "job.state == 'COMPLETED'"}
    job_id = server.submit(job(task(), webhooks=[hook]))
    wait_for(lambda: hooks.at("/job"), 20, "the first try")
    server.kill()
    server.start()
    wait_for(lambda: len(hooks.at("/job")) == 2, 40, "the second try")
    first, second = hooks.at("/job")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.body["id"] == job_id


# --- events -------------------------------------------------------------------------------------------------------


def test_events_tell_of_each_state_of_jobs_and_tasks(shell: Standalone) -> None:
    definition = job(
        task(name="runs"),
        task(name="skipped", **{"if": "false"}),
        each("1..2", task(name="child")),
        each("[1]", task(name="skipped child", **{"if": "false"})),
        task("exit 1", name="fails"),
    )
    with streaming(f"{shell.url}/events") as stream:
        job_id = shell.submit(definition)
        shell.wait_job(job_id)

        def of_job(kind: str) -> list[Any]:
            return [e for e in stream.events if (e["type"], e["jobId"]) == (kind, job_id)]

        wait_for(lambda: "FAILED" in [e["state"] for e in of_job("job.StateChange")], 10, "its end")
        assert [e["state"] for e in of_job("job.StateChange")] == [
            "PENDING",
            "SCHEDULED",
            "RUNNING",
            "FAILED",
        ]
        by_name: dict[str, list[str]] = {}
        for event in of_job("task.StateChange"):
            by_name.setdefault(event["name"], []).append(event["state"])
    assert set(by_name["runs"]) == {"PENDING", "SCHEDULED", "RUNNING", "COMPLETED"}
    assert by_name["runs"][-1] == "COMPLETED"
    assert by_name["skipped"] == ["SKIPPED"]
    assert by_name["child"].count("COMPLETED") == by_name["child"].count("RUNNING") == 2
    assert by_name["child"].count("PENDING") == by_name["child"].count("SCHEDULED") == 2
    assert by_name["skipped child"] == ["SKIPPED"]
    assert by_name["fails"][-1] == "FAILED"
