"""Why jobs wait or failed, jobs run again, and what is found by filters, short ids and entity tags."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from coordinator.api import jobs, waiting
from shared.model import language
from shared.model.documents import (
    JobDocument,
    LostRunEntry,
    NodeDocument,
    ScheduleRef,
    TaskReference,
)
from shared.model.queries import Change
from shared.model.states import NodeKind
from tests.unit.api.served import Answer, Served

JSON = {"Content-Type": "application/json"}
TWO = """
name: two
inputs: {city: Bern}
secrets: {token: hunter2}
tasks:
  - {name: fetch, image: alpine, run: "echo {{ inputs.city }}", var: found}
  - {name: report, image: alpine, run: "echo {{ secrets.token }}"}
"""


async def rerun(api: Served, id: str, **asked: Any) -> Answer:
    return await api.ask("POST", f"/jobs/{id}/rerun", data=json.dumps(asked), headers=JSON)


async def set_job(api: Served, id: str, **fields: Any) -> None:
    assert await api.store.change(Change(kind=JobDocument, id=id, set=fields))


async def worker(api: Served, id: str, **queues: int) -> None:
    now = api.store.now()
    await api.store.insert(
        NodeDocument(
            id=id,
            kind=NodeKind.WORKER,
            name=id,
            hostname=id,
            version="1",
            started_at=now,
            last_heartbeat_at=now,
            queues=queues,
        )
    )


async def test_a_task_says_that_no_worker_takes_from_its_queue(api: Served) -> None:
    job = await api.submit()
    await api.task(job["id"], state="SCHEDULED", queue="video", published_at=api.store.now())
    await api.commands.become(job["id"], "SCHEDULED")
    told = (await api.get("/tasks/t1")).json["waiting"]
    assert (told["reason"], told["queue"]) == ("noWorker", "video")
    assert told["message"] == "no worker takes from `video`"
    assert told["since"]
    assert (await api.get(f"/jobs/{job['id']}")).json["waiting"] == told
    assert (await api.get("/jobs")).json["items"][0]["waiting"] == told
    why = (await api.get(f"/jobs/{job['id']}/why")).json
    assert why["message"] == "say: no worker takes from `video`"
    assert (why["reason"], why["task"]) == ("noWorker", {"id": "t1", "name": "say"})


@pytest.mark.parametrize(
    ("fields", "reason", "said"),
    [
        ({"hold": "delay", "due_at": 1_000_000, "attempt": 2}, "retry", "waits for attempt 2"),
        ({"hold": "concurrency"}, "concurrency", "held by `concurrency`"),
        ({"hold": "window"}, "window", "held by the window"),
    ],
)
async def test_a_task_says_what_holds_it(
    api: Served, fields: dict[str, Any], reason: str, said: str
) -> None:
    job = await api.submit()
    await api.task(job["id"], state="CREATED", **fields)
    why = (await api.get("/tasks/t1/why")).json
    assert why["reason"] == reason
    assert why["message"].startswith(said)
    assert ("until" in why) == (reason == "retry")


async def test_a_lost_task_and_a_busy_queue_say_so(api: Served) -> None:
    job = await api.submit()
    await worker(api, "w1", default=1)
    slot = await api.broker.slot("default")
    await api.broker.publish("default", b"{}")
    held = await slot.take()
    now = api.store.now()
    await api.task(job["id"], id="a", state="SCHEDULED", queue="default", published_at=now)
    await api.task(job["id"], id="b", state="SCHEDULED", queue="default", published_at=now + 1)
    runs = [LostRunEntry(number=1, node_id="w0")]
    await api.task(job["id"], id="c", state="SCHEDULED", queue="default", runs=runs)
    why = (await api.get("/tasks/b/why")).json
    assert why["reason"] == "busy"
    assert why["message"] == "the only slot is busy in `default`, 1 task is before it"
    assert (why["slots"], why["before"]) == (1, 1)
    assert (await api.get("/tasks/c/why")).json["message"] == "lost with node w0, runs again"
    await held.ack()
    await slot.close()


async def test_a_broker_that_does_not_answer_holds_no_answer_up(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def silent(name: str) -> None:
        asked.append(name)
        await asyncio.sleep(3600)

    monkeypatch.setattr(api.broker, "queue", silent)
    monkeypatch.setattr(waiting, "_ASKED_WITHIN", 0.2)
    for number in range(20):
        job = await api.submit()
        queue, now = f"q{number}", api.store.now()
        id = f"t-{queue}"
        await api.task(job["id"], id=id, state="SCHEDULED", queue=queue, published_at=now)
        await api.commands.become(job["id"], "SCHEDULED")
    began = time.monotonic()
    jobs = (await api.get("/jobs?size=20")).json["items"]
    assert time.monotonic() - began < 2
    assert {job["waiting"]["message"] for job in jobs} == {"the broker is away"}
    assert len(asked) == 1


async def test_a_task_whose_image_is_pulled_says_so(api: Served) -> None:
    job = await api.submit()
    says = language.TaskDefinition(name="say", image="alpine", run="echo")
    running = {"state": "RUNNING", "run": 1, "node_id": "w1", "started_at": 1}
    task = await api.task(job["id"], definition=says, **running)

    async def why() -> tuple[str, str]:
        found = (await api.get("/tasks/t1/why")).json
        return found["reason"], found["message"]

    await api.log(task, "alpine\n", first=1)
    assert await why() == ("running", "it runs on node w1")
    await api.log(task, "pulling alpine\n", first=2)
    assert await why() == ("pulling", "its image alpine is being pulled")
    await api.log(task, "pulling alpine: 1.5 of 3.2 MiB\n", first=3)
    said = "its image alpine is being pulled: 1.5 of 3.2 MiB"
    assert await why() == ("pulling", said)
    await api.commands.become(job["id"], "RUNNING")
    assert (await api.get(f"/jobs/{job['id']}/why")).json["message"] == f"say: {said}"
    await api.log(task, "pulled alpine\n", first=4)
    assert (await why())[0] == "running"
    await api.log(task, "pulling ubuntu\n", first=5)
    assert (await why())[0] == "running"


async def test_why_a_job_failed(api: Served) -> None:
    job = await api.submit()
    task = await api.task(
        job["id"], state="FAILED", error="exit code 2", exit_code=2, attempt=3, run=1, ended_at=1
    )
    await api.log(task, "one\ntwo\n\n")
    failed = TaskReference("t1", "say")
    await api.commands.become(job["id"], "FAILED", error="exit code 2", failed_task=failed)
    shown = (await api.get(f"/jobs/{job['id']}")).json
    assert shown["failedTask"] == {"id": "t1", "name": "say"}
    assert (await api.get("/jobs")).json["items"][0]["failedTask"] == shown["failedTask"]
    why = (await api.get(f"/jobs/{job['id']}/why")).json
    assert why["message"] == "it failed at say: exit code 2 (after 3 attempts)"
    assert (why["exitCode"], why["attempts"], why["lastLine"]) == (2, 3, "two")
    assert (await api.get("/jobs/ffffffff/why")).status == 404


async def test_a_job_that_failed_by_a_sub_job_says_where_inside(api: Served) -> None:
    outer, inner = await api.submit(), await api.submit()
    await api.task(outer["id"], id="t1", name="build", state="FAILED", subjob_id=inner["id"])
    said = "task 'test': exit code 1"
    task = await api.task(inner["id"], id="t2", name="test", state="FAILED", error=said, run=1)
    await api.log(task, "4 is not 5\n")
    for job, failed in (
        (outer, TaskReference("t1", "build")),
        (inner, TaskReference("t2", "test")),
    ):
        await api.commands.become(job["id"], "FAILED", error=said, failed_task=failed)
    why = (await api.get(f"/jobs/{outer['id']}/why")).json
    assert why["message"] == "it failed at say, in the sub-job of build: exit code 1"
    assert (why["task"]["id"], why["lastLine"]) == ("t2", "4 is not 5")
    inside = (await api.get(f"/jobs/{inner['id']}/why")).json
    assert inside["message"] == "it failed at say: exit code 1"


async def test_a_job_waits_for_what_a_sub_job_of_it_waits_for(api: Served) -> None:
    outer, inner = await api.submit(), await api.submit()
    for job in (outer, inner):
        await api.commands.become(job["id"], "RUNNING")
    subjob = language.TaskDefinition(name="build", subjob=language.SubJob(name="inner", tasks=[]))
    await api.task(
        outer["id"], id="t1", definition=subjob, state="RUNNING", open=True, subjob_id=inner["id"]
    )
    waits = {"state": "SCHEDULED", "queue": "nobody", "published_at": 1, "open": True}
    await api.task(inner["id"], id="t2", **waits)
    why = (await api.get(f"/jobs/{outer['id']}/why")).json
    assert (why["reason"], why["queue"], why["task"]["id"]) == ("noWorker", "nobody", "t2")
    assert why["message"].startswith("say, in a sub-job: no worker takes from `nobody`")
    (listed,) = [job for job in (await api.get("/jobs")).json["items"] if job["id"] == outer["id"]]
    assert listed["waiting"]["queue"] == "nobody"
    await api.task(inner["id"], id="t3", state="RUNNING", open=True)
    assert (await api.get(f"/jobs/{outer['id']}/why")).json["task"]["id"] == "t3"


async def test_a_rerun_is_a_new_job_with_what_was_changed(api: Served) -> None:
    job = await api.submit(TWO)
    answer = await rerun(api, job["id"], inputs={"city": "Basel"})
    assert answer.status == 200, answer.text
    assert answer.json["rerunOf"] == job["id"]
    assert answer.json["inputs"] == {"city": "Basel"}
    made = await api.job(answer.json["id"])
    assert made.definition.secrets == {"token": "hunter2"}
    assert "hunter2" not in answer.text
    bare = await api.ask("POST", f"/jobs/{job['id']}/rerun")
    assert bare.json["inputs"] == {"city": "Bern"}


async def test_a_rerun_from_a_step_keeps_what_came_before(api: Served) -> None:
    job = await api.submit(TWO)
    refused = await rerun(api, job["id"], **{"from": "report"})
    assert (refused.status, "did not complete" in refused.message) == (400, True)
    await api.task(job["id"], state="COMPLETED", var="found", result="42", run=1)
    plan = await rerun(api, job["id"], **{"from": "report", "dryRun": True})
    assert [step["name"] for step in plan.json["kept"]] == ["fetch"]
    assert [(step["position"], step["name"]) for step in plan.json["run"]] == [(2, "report")]
    assert all(step["reason"] for step in plan.json["kept"] + plan.json["run"])
    assert (await api.get("/jobs")).json["totalItems"] == 1
    made = (await rerun(api, job["id"], **{"from": 2})).json
    shown = (await api.get(f"/jobs/{made['id']}")).json
    assert shown["context"]["tasks"] == {"found": "42"}
    assert [task["state"] for task in shown["execution"]] == ["COMPLETED"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"from": "nothing"}, "from: there is no step 'nothing'"),
        ({"tasks": []}, "tasks"),
        ({"tasks": [{"name": "x", "nonsense": 1}]}, "nonsense"),
        ({"color": "red"}, "color"),
        ({"inputs": {"city": 1}}, "inputs"),
    ],
)
async def test_a_rerun_refuses_what_makes_no_job(
    api: Served, asked: dict[str, Any], said: str
) -> None:
    job = await api.submit(TWO)
    answer = await rerun(api, job["id"], **asked)
    assert answer.status == 400
    assert said in answer.message
    assert (await rerun(api, "0" * 32)).status == 404


async def test_a_changed_step_can_not_be_kept(api: Served) -> None:
    job = await api.submit(TWO)
    await api.task(job["id"], state="COMPLETED")
    tasks = (await api.get(f"/jobs/{job['id']}")).json["tasks"]
    tasks[0]["run"] = "echo other"
    answer = await rerun(api, job["id"], tasks=tasks, **{"from": 2})
    assert answer.message == "from: step 1 is changed, so what it did can't be kept"


async def test_jobs_by_schedule_and_parent(api: Served) -> None:
    one, two = await api.submit(), await api.submit()
    three = await api.submit()
    await set_job(api, one["id"], schedule=ScheduleRef("s1", "* * * * *"))
    await set_job(api, two["id"], parent_id="t9")

    async def ids(query: str) -> list[str]:
        return [job["id"] for job in (await api.get(f"/jobs?{query}")).json["items"]]

    assert await ids("scheduleId=s1") == [one["id"]]
    assert await ids("parentId=t9") == [two["id"]]
    assert await ids("parentId=none") == [three["id"], one["id"]]
    assert await ids("parentId=none&q=hello") == [three["id"], one["id"]]
    counted = {"": 3, "?parentId=none": 2, "?scheduleId=s1": 1}
    for query, number in counted.items():
        assert sum((await api.get(f"/jobs/counts{query}")).json["states"].values()) == number


async def test_counts_by_state_and_tag(api: Served) -> None:
    tagged = "name: t\ntags: [a, b]\ntasks:\n  - {name: x, run: 'true', image: alpine}\n"
    first = await api.submit(tagged)
    await api.submit(tagged.replace("[a, b]", "[a]"))
    await api.commands.become(first["id"], "FAILED")
    counts = (await api.get("/jobs/counts")).json
    assert counts == {"states": {"PENDING": 1, "FAILED": 1}, "tags": {"a": 2, "b": 1}}


async def test_counts_that_stop_at_a_limit_say_so(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_TOTAL", 2)
    tagged = "name: t\ntags: [a]\ntasks:\n  - {name: x, run: 'true', image: alpine}\n"
    await api.submit(tagged)
    await api.submit(tagged)
    counts = (await api.get("/jobs/counts")).json
    assert counts == {"states": {"PENDING": 2}, "tags": {"a": 2}}
    await api.submit(tagged)
    await api.commands.become((await api.submit(tagged))["id"], "FAILED")
    counts = (await api.get("/jobs/counts")).json
    assert counts == {
        "states": {"PENDING": 2, "FAILED": 1},
        "tags": {"a": 2},
        "statesCapped": ["PENDING"],
        "tagsCapped": True,
    }


async def test_tags_that_are_left_out_of_the_counts_are_told(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_MAX_TAGS", 1)
    tagged = "name: t\ntags: [a, b]\ntasks:\n  - {name: x, run: 'true', image: alpine}\n"
    await api.submit(tagged)
    counts = (await api.get("/jobs/counts")).json
    assert (counts["tags"], counts["tagsCapped"]) == ({"a": 1}, True)


async def test_a_count_of_tasks_before_one_that_stops_at_a_limit_says_so(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_COUNTED", 2)
    job = await api.submit()
    await worker(api, "w1", default=1)
    slot = await api.broker.slot("default")
    await api.broker.publish("default", b"{}")
    held = await slot.take()
    for at, id in enumerate("abcd", api.store.now()):
        await api.task(job["id"], id=id, state="SCHEDULED", queue="default", published_at=at)
    why = (await api.get("/tasks/c/why")).json
    assert why["message"].endswith("2 tasks are before it")
    assert (why["before"], "beforeCapped" in why) == (2, False)
    why = (await api.get("/tasks/d/why")).json
    assert why["message"].endswith("more than 2 tasks are before it")
    assert (why["before"], why["beforeCapped"]) == (2, True)
    await held.ack()


async def test_the_tasks_of_a_job_by_state_and_parent_failed_first(api: Served) -> None:
    job = await api.submit()
    inner = language.TaskDefinition(name="i", run="x")
    each = language.Each(list="{{ 1..3 }}", task=inner)
    await api.task(job["id"], definition=language.TaskDefinition(name="all", each=each), size=3)
    for number, state in enumerate(["COMPLETED", "FAILED", "RUNNING", "FAILED"]):
        await api.task(
            job["id"], id=f"c{number}", parent_id="t1", state=state, started_at=number + 1
        )

    async def ids(query: str) -> list[str]:
        page = (await api.get(f"/jobs/{job['id']}/tasks?{query}")).json
        return [task["id"] for task in page["items"]]

    assert await ids("parentId=none") == ["t1"]
    assert await ids("parentId=t1") == ["c0", "c1", "c2", "c3"]
    assert await ids("state=failed,running") == ["c1", "c2", "c3"]
    assert await ids("parentId=t1&order=failed") == ["c1", "c3", "c0", "c2"]
    assert await ids("parentId=t1&order=failed&size=1&page=3") == ["c0"]
    other = await api.submit()
    found = (await api.get(f"/jobs/{other['id']}/tasks?parentId=t1&order=failed")).json
    assert (found["items"], found["totalItems"]) == ([], 0)
    assert await ids("parentId=t1&order=failed&size=3&page=1") == ["c1", "c3", "c0"]
    assert (await api.get(f"/jobs/{job['id']}/tasks?state=odd")).status == 400
    assert (await api.get(f"/jobs/{job['id']}/tasks?order=odd")).status == 400
    counts = (await api.get("/tasks/t1")).json["counts"]
    assert counts == {"COMPLETED": 1, "FAILED": 2, "RUNNING": 1}


async def test_a_child_is_counted_once_by_its_newest_attempt(api: Served) -> None:
    """Case 25: of nine children one failed at first, one is tried again later, one was cancelled before that, and two
    before their turn."""
    job = await api.submit()
    inner = language.TaskDefinition(name="i", run="x", retry=language.Retry(limit=1))
    each = language.Each(list="{{ 1..9 }}", task=inner)
    await api.task(job["id"], definition=language.TaskDefinition(name="all", each=each), size=9)
    stored: list[dict[str, Any]] = [
        *({"state": "COMPLETED", "evaluated_at": 1} for _ in range(3)),
        {"state": "FAILED", "evaluated_at": 1},
        {"state": "COMPLETED", "evaluated_at": 1, "attempt": 2},
        {"state": "FAILED", "evaluated_at": 1},
        {"state": "CREATED", "hold": "delay", "attempt": 2},
        {"state": "CREATED", "hold": "window"},
        *({"state": "CANCELLED"} for _ in range(2)),
        {"state": "FAILED", "evaluated_at": 1},
        {"state": "CANCELLED", "attempt": 2},
    ]
    for number, fields in enumerate(stored):
        await api.task(job["id"], id=f"c{number}", parent_id="t1", **fields)
    seen = (await api.get("/tasks/t1")).json
    assert seen["counts"] == {"COMPLETED": 4, "CREATED": 2, "CANCELLED": 3}
    assert (seen["each"]["index"], seen["each"]["size"], seen["each"]["completions"]) == (6, 9, 4)


async def test_what_a_node_runs(api: Served) -> None:
    job = await api.submit()
    await api.task(job["id"], id="a", state="RUNNING", node_id="n1")
    await api.task(job["id"], id="b", state="COMPLETED", node_id="n1")
    page = (await api.get("/tasks?nodeId=n1")).json
    assert [task["id"] for task in page["items"]] == ["a"]
    assert (await api.get("/tasks")).status == 400


async def test_ids_may_be_shortened(api: Served) -> None:
    job = await api.submit()
    await api.task(job["id"], id="abcdef0123" + "0" * 22)
    await api.task(job["id"], id="abcdef0199" + "0" * 22, position=2)
    assert (await api.get(f"/jobs/{job['id'][:6]}")).json["id"] == job["id"]
    assert (await api.get(f"/jobs/{job['id'][:5]}")).status == 404
    assert (await api.get("/tasks/abcdef0123")).status == 200
    both = await api.get("/tasks/abcdef01")
    assert (both.status, "more than one task" in both.message) == (409, True)
    assert (await api.get("/tasks/abcdef77")).status == 404


async def test_a_filter_takes_a_shortened_id(api: Served) -> None:
    job = (await api.submit())["id"]
    parent = await api.task(job, id="abcdef0123456789", position=1)
    await api.task(job, id="child", parent_id=parent.id, position=1)
    await api.commands.become(job, "RUNNING", parent_id=parent.id)
    for path in (f"/jobs/{job}/tasks", "/jobs"):
        assert (await api.get(f"{path}?parentId=abcdef")).json["totalItems"] == 1, path
        assert (await api.get(f"{path}?parentId=abcdef77")).status == 404, path
    assert (await api.get("/jobs/counts?parentId=abcdef")).json["states"] == {"RUNNING": 1}


async def test_entity_tags(api: Served) -> None:
    job = await api.submit()
    one = f"/jobs/{job['id']}"
    lists = ("/jobs", "/jobs/counts", "/scheduled-jobs", "/tasks?nodeId=n", "/nodes", "/queues")
    more = ("/queues/dead/messages", "/users", "/roles", "/tokens", "/audit", "/schemas/job.json")
    of_job = (one, f"{one}/tasks", f"{one}/deliveries", f"{one}/log")
    for path in (*of_job, *lists, *more):
        first = await api.get(path)
        tag = first.headers["ETag"]
        again = await api.get(path, headers={"If-None-Match": tag})
        known = again.headers["ETag"]
        assert (again.status, again.body, known) == (304, b"", tag.removeprefix("W/"))
        other = await api.get(path, headers={"If-None-Match": '"other"'})
        assert other.json == first.json


async def test_large_answers_are_compressed_where_the_client_takes_it(api: Served) -> None:
    job = await api.submit()
    for number in range(10):
        await api.task(job["id"], id=f"t{number}", result="x" * 100)
    path = f"/jobs/{job['id']}"
    plain = await api.get(path, headers={"Accept-Encoding": "identity"})
    assert (plain.headers.get("Content-Encoding"), plain.headers["Vary"]) == (
        None,
        "Accept-Encoding",
    )
    async with api.session.get(api.url + path, headers={"Accept-Encoding": "gzip"}) as small:
        assert small.headers["Content-Encoding"] == "gzip"
        assert int(small.headers["Content-Length"]) < len(plain.body) / 3
        assert await small.read() == plain.body
        tag = small.headers["ETag"]
    assert tag == "W/" + plain.headers["ETag"]
    again = await api.get(path, headers={"If-None-Match": tag, "Accept-Encoding": "gzip"})
    assert (again.status, again.body) == (304, b"")
    for takes, coding in (("gzip;q=0", None), ("br, *;q=0.5", "gzip"), ("GZIP ; q=0.000", None)):
        got = await api.get(path, headers={"Accept-Encoding": takes})
        assert got.headers.get("Content-Encoding") == coding
    tiny = await api.get(path + "?execution=false", headers={"Accept-Encoding": "gzip"})
    assert len(tiny.body) < 1024
    assert "Content-Encoding" not in tiny.headers


async def test_the_end_of_a_log_and_what_came_since(api: Served) -> None:
    job = await api.submit()
    task = await api.task(job["id"], run=1, state="RUNNING")
    await api.log(task, "1\n2\n3\n", "4\n5\n")

    async def texts(query: str) -> list[str]:
        return [part["contents"] for part in (await api.get(query)).json["items"]]

    for path in (f"/jobs/{job['id']}/log", "/tasks/t1/log"):
        assert await texts(f"{path}?tail=3") == ["4\n5\n", "3\n"]
        assert await texts(f"{path}?tail=3&order=asc") == ["3\n", "4\n5\n"]
        assert await texts(f"{path}?tail=0") == []
        assert await texts(f"{path}?order=asc") == ["1\n2\n3\n", "4\n5\n"]
        assert len(await texts(f"{path}?since=10m")) == 2
        assert await texts(f"{path}?since=2099-01-01T00:00:00Z") == []
        assert len(await texts(f"{path}?since=2001-01-01T00:00:00Z")) == 2
        for odd in ("since=yesterday", "tail=x", "order=up"):
            assert (await api.get(f"{path}?{odd}")).status == 400


async def test_a_stream_of_whole_parts(api: Served) -> None:
    job = await api.submit()
    done = {"state": "COMPLETED", "run": 1, "log_parts": 2, "ended_at": api.store.now()}
    task = await api.task(job["id"], **done)
    await api.log(task, "1\n2\n3\n", "4\n5\n")
    first, second, end = await api.events("/tasks/t1/log/stream?format=parts")
    assert json.loads(first.data)["contents"] == "1\n2\n3\n"
    assert json.loads(second.data)["contents"] == "4\n5\n"
    assert end.name == "end"
    rest = await api.events("/tasks/t1/log/stream?format=parts", **{"Last-Event-ID": first.id})
    assert [event.data for event in rest] == [second.data, end.data]


async def test_a_job_without_its_execution_and_places_of_tasks(api: Served) -> None:
    job = await api.submit()
    await api.task(job["id"], path="1/0", attempt=2)
    assert (await api.get(f"/jobs/{job['id']}?execution=false")).json["execution"] == []
    (task,) = (await api.get(f"/jobs/{job['id']}")).json["execution"]
    assert (task["path"], task["attempt"]) == ("1/0", 2)
    assert (await api.get(f"/jobs/{job['id']}?execution=perhaps")).status == 400


async def test_what_waits_in_many_queues_costs_few_questions(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await api.submit()
    await worker(api, "w1", q1=1)
    for number in range(60):
        await api.task(job["id"], id=f"t{number}", state="SCHEDULED", queue=f"q{number}")
    looks, asked = [], []
    find, queue = api.store.find, api.broker.queue

    async def counted_find(kind: Any, *more: Any, **named: Any) -> Any:
        looks.append(kind)
        return await find(kind, *more, **named)

    async def counted_queue(name: str) -> Any:
        asked.append(name)
        return await queue(name)

    monkeypatch.setattr(api.store, "find", counted_find)
    monkeypatch.setattr(api.broker, "queue", counted_queue)
    whole = (await api.get(f"/jobs/{job['id']}?size=100")).json
    assert len(asked) <= waiting._QUEUES_ASKED + 1, "those of its tasks, and that of the job itself"
    assert looks.count(NodeDocument) <= 2
    told = [task["waiting"] for task in whole["execution"] if "waiting" in task]
    assert len(told) == 60
    assert {each["reason"] for each in told} == {"noWorker", "broker"}
    assert "not asked" in told[-1]["message"] + told[0]["message"]
