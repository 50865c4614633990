"""Jobs: the seed's examples, paging, search, commands, and every refusal."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from typing import Any

import pytest

from shared.model import language
from tests.unit.api.conftest import Serve
from tests.unit.api.served import HELLO, YAML, Served

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
JSON = {"Content-Type": "application/json"}


async def test_submit_yaml_as_the_seed_does(api: Served) -> None:
    body = """
name: sample job
tasks:
  - name: sample task
    image: ubuntu:mantic
    run: echo hello world
"""
    answer = await api.ask("POST", "/jobs", data=body.encode(), headers=YAML)
    assert answer.status == 200
    job = answer.json
    assert re.fullmatch(r"[0-9a-f]{32}", job["id"])
    assert job["name"] == "sample job"
    assert job["state"] == "PENDING"
    assert TIME.fullmatch(job["createdAt"])
    assert (job["position"], job["taskCount"], job["progress"]) == (0, 1, 0.0)
    assert job["createdBy"]["username"] == "guest"
    assert not {"tasks", "execution", "startedAt", "error", "tags", "inputs"} & set(job)


async def test_submit_json_as_the_seed_does(api: Served) -> None:
    body = {
        "name": "hello job",
        "tasks": [{"name": "say hello", "image": "ubuntu:mantic", "run": "echo -n hello world\n"}],
    }
    answer = await api.ask("POST", "/jobs", data=json.dumps(body), headers=JSON)
    assert answer.status == 200
    shown = (await api.get(f"/jobs/{answer.json['id']}")).json
    assert shown["tasks"] == body["tasks"]
    assert shown["execution"] == []
    assert shown["context"] == {"job": {"id": shown["id"], "name": "hello job"}}


async def test_a_job_with_its_execution(api: Served) -> None:
    job = await api.submit()
    now = api.store.now()
    evaluated = language.TaskDefinition(name="say", run="echo hello", image="alpine")
    await api.task(
        job["id"],
        evaluated=evaluated,
        state="COMPLETED",
        started_at=now,
        completed_at=now,
        queue="default",
        node_id="n1",
        result="r",
        var="v",
        exit_code=0,
    )
    await api.task(job["id"], id="t2", position=2)
    shown = (await api.get(f"/jobs/{job['id']}")).json
    first, second = shown["execution"]
    expected = {
        "id": "t1",
        "jobId": job["id"],
        "position": 1,
        "name": "say",
        "state": "COMPLETED",
        "run": "echo hello",
        "image": "alpine",
        "queue": "default",
        "nodeId": "n1",
    }
    assert {key: first[key] for key in expected} == expected
    assert second["state"] == "CREATED"
    assert shown["context"]["tasks"] == {"v": "r"}
    assert (await api.get("/tasks/t1")).json == first
    page = (await api.get(f"/jobs/{job['id']}/tasks?size=1&page=2")).json
    assert page["items"] == [second]
    assert (page["number"], page["size"], page["totalPages"], page["totalItems"]) == (2, 1, 2, 2)


async def test_execution_is_by_position_then_start(api: Served) -> None:
    job = await api.submit()
    for id, position, started in [("c", 2, 5), ("b", 1, 9), ("a", 1, 3), ("d", 2, None)]:
        await api.task(job["id"], id=id, position=position, started_at=started)
    shown = (await api.get(f"/jobs/{job['id']}")).json
    assert [task["id"] for task in shown["execution"]] == ["a", "b", "c", "d"]
    listed = (await api.get(f"/jobs/{job['id']}/tasks")).json
    assert [task["id"] for task in listed["items"]] == ["a", "b", "c", "d"]


async def test_a_long_execution_shows_the_newest(api: Served) -> None:
    job = await api.submit()
    tasks = [await api.task(job["id"], id=f"t{n:04}", created_at=n) for n in range(1, 1003)]
    shown = (await api.get(f"/jobs/{job['id']}")).json
    assert shown["executionTruncated"] is True
    assert [task["id"] for task in shown["execution"]] == [task.id for task in tasks[2:]]
    page = (await api.get(f"/jobs/{job['id']}/tasks?size=20&page=51")).json
    assert [task["id"] for task in page["items"]] == ["t1001", "t1002"]
    assert page["totalItems"] == 1002


async def test_composites_count_their_children(api: Served) -> None:
    job = await api.submit()
    inner = language.TaskDefinition(name="i", run="x")
    each = language.Each(list="{{ 1..3 }}", task=inner)
    await api.task(job["id"], definition=language.TaskDefinition(name="all", each=each), size=3)
    for number, state in enumerate(["COMPLETED", "SKIPPED", "RUNNING"]):
        await api.task(job["id"], id=f"c{number}", parent_id="t1", state=state)
    assert (await api.get("/tasks/t1")).json["each"] == {
        "list": "{{ 1..3 }}",
        "var": "item",
        "task": {"name": "i", "run": "x"},
        "size": 3,
        "completions": 2,
        "concurrency": 0,
    }


async def test_a_log_with_missing_parts_is_said_to_be(api: Served) -> None:
    job = await api.submit()
    task = await api.task(job["id"], state="COMPLETED", run=2, log_parts=2)
    await api.log(task, "old\n", "old\n")
    await api.log(task, "a\n", run=2)
    assert (await api.get("/tasks/t1")).json["logIncomplete"] is True
    await api.log(task, "b\n", first=2, run=2)
    assert (await api.get("/tasks/t1")).json["logIncomplete"] is False


async def test_list_as_the_seed_shows(api: Served) -> None:
    ids = [(await api.submit())["id"] for _ in range(4)]
    page = (await api.get("/jobs")).json
    assert [job["id"] for job in page["items"]] == ids[::-1]
    assert (page["number"], page["size"], page["totalPages"], page["totalItems"]) == (1, 4, 1, 4)
    assert "totalCapped" not in page


async def test_pages(api: Served) -> None:
    for _ in range(3):
        await api.submit()
    page = (await api.get("/jobs?size=2&page=2")).json
    assert (page["size"], page["number"], page["totalPages"]) == (1, 2, 2)
    beyond = (await api.get("/jobs?page=99999999999999999999")).json
    assert (beyond["items"], beyond["size"]) == ([], 0)
    for size in ("0", "-5", "21", "1000000"):
        assert (await api.get(f"/jobs?size={size}")).status == 200
    assert (await api.get("/jobs?size=0")).json["size"] == 1
    assert (await api.get("/jobs?page=0")).json["number"] == 1


@pytest.mark.parametrize(
    "query", ["page=x", "size=x", "page=", "page=1.5", "size=%D9%A1", "page=1e3"]
)
async def test_what_is_no_number(api: Served, query: str) -> None:
    answer = await api.get(f"/jobs?{query}")
    assert answer.status == 400
    assert "must be a number" in answer.message


async def test_search(api: Served) -> None:
    for name, tags in [("red apple", ["fruit"]), ("red car", ["toy", "big"]), ("blue", ["toy"])]:
        await api.submit(HELLO.replace("hello", name, 1) + f"tags: {json.dumps(tags)}\n")

    async def found(query: str) -> list[str]:
        return [job["name"] for job in (await api.get(f"/jobs?{query}")).json["items"]]

    assert await found("q=red") == ["red car", "red apple"]
    assert await found("q=red+apple") == ["red apple"]
    assert await found("q=RED+tag:toy") == ["red car"]
    assert await found("q=tags:fruit,big") == ["red car", "red apple"]
    assert await found("q=tag:toy+tag:big") == ["red car"]
    assert await found("q=pending+blue") == ["blue"]
    assert await found("tag=toy") == ["blue", "red car"]
    assert await found("state=running") == []
    assert len(await found("state=PENDING")) == 3
    for hostile in (
        "%22",
        "'",
        "(",
        "*",
        "a:",
        "tags:",
        "tag:",
        "%00",
        "NEAR",
        "-",
        "$where",
        "%ff",
        "%ed%a0%80",
    ):
        assert (await api.get(f"/jobs?q={hostile}")).status == 200


async def test_an_unknown_state(api: Served) -> None:
    answer = await api.get("/jobs?state=SLEEPING")
    assert answer.status == 400
    assert "RUNNING" in answer.message


async def test_cancel_restart_delete(api: Served) -> None:
    id = (await api.submit())["id"]
    refused = await api.ask("DELETE", f"/jobs/{id}")
    assert refused.status == 400
    answer = await api.ask("PUT", f"/jobs/{id}/cancel")
    assert (answer.status, answer.json) == (200, {"status": "OK"})
    again = await api.ask("PUT", f"/jobs/{id}/cancel")
    assert (again.status, again.message) == (400, "job is not running")
    answer = await api.ask("PUT", f"/jobs/{id}/restart")
    assert (answer.status, answer.json) == (200, {"status": "OK"})
    await api.commands.become(id, "COMPLETED")
    refused = await api.ask("PUT", f"/jobs/{id}/restart")
    assert (refused.status, refused.message) == (400, "job is COMPLETED and can not be restarted")
    assert (await api.ask("DELETE", f"/jobs/{id}")).json == {"status": "OK"}
    assert (await api.get(f"/jobs/{id}")).status == 404


HOSTILE = ["x", "%00", "..%2F..%2Fetc", "%ff", "$ne", "a" * 300, "%F0%9F%92%A9", "'%20OR%201=1"]


@pytest.mark.parametrize("id", HOSTILE)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/{}"),
        ("GET", "/jobs/{}/tasks"),
        ("PUT", "/jobs/{}/cancel"),
        ("PUT", "/jobs/{}/restart"),
        ("DELETE", "/jobs/{}"),
        ("GET", "/jobs/{}/log"),
        ("GET", "/jobs/{}/log/stream"),
        ("GET", "/jobs/{}/log/download"),
        ("GET", "/tasks/{}"),
        ("GET", "/tasks/{}/log"),
        ("GET", "/tasks/{}/log/stream"),
        ("PUT", "/nodes/{}/drain"),
        ("PUT", "/nodes/{}/resume"),
        ("GET", "/queues/{}"),
        ("DELETE", "/queues/{}"),
        ("GET", "/scheduled-jobs/{}"),
        ("PUT", "/scheduled-jobs/{}/pause"),
        ("DELETE", "/scheduled-jobs/{}"),
    ],
)
async def test_what_is_not_there(api: Served, method: str, path: str, id: str) -> None:
    answer = await api.ask(method, path.format(id))
    assert answer.status == 404, answer.text
    assert answer.message


async def test_every_fault_of_a_document_is_told(api: Served) -> None:
    body = "nme: x\ntasks:\n  - name: a\n    run: x\n    retry: {limt: 1}\n    priority: 12\n"
    answer = await api.ask("POST", "/jobs", data=body, headers=YAML)
    assert answer.status == 400
    assert 'tasks[0].retry.limt: unknown field, did you mean "limit"?' in answer.message
    paths = {problem["path"] for problem in answer.json["faults"]}
    assert {"tasks[0].retry.limt", "tasks[0].priority"} <= paths
    assert all(problem["line"] for problem in answer.json["faults"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/yaml; charset=utf-8"}, 200),
        ({"Content-Type": "Application/X-YAML"}, 200),
        ({"Content-Type": "application/yaml"}, 200),
        ({"Content-Type": "application/json"}, 400),
        ({"Content-Type": "text/yaml; charset=latin-1"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "nonsense"}, 415),
        ({"Content-Type": "text/yaml", "Content-Encoding": "br"}, 415),
    ],
)
async def test_content_types(api: Served, headers: dict[str, str], status: int) -> None:
    answer = await api.ask("POST", "/jobs", data=HELLO.encode(), headers=headers)
    assert answer.status == status, answer.text
    if status == 415 and "Content-Encoding" not in headers:
        assert "utf-8" in answer.message or "text/yaml" in answer.message


async def test_a_missing_content_type(api: Served) -> None:
    options: dict[str, Any] = {"skip_auto_headers": ["Content-Type"], "data": HELLO.encode()}
    answer = await api.ask("POST", "/jobs", **options)
    assert answer.status == 415
    assert "missing" in answer.message
    assert "text/yaml" in answer.message


async def test_a_body_that_is_too_large(api: Served) -> None:
    body = HELLO + "#" * 600_000
    answer = await api.ask("POST", "/jobs", data=body.encode(), headers=YAML)
    assert answer.status == 413
    assert "512000" in answer.message
    just = HELLO + "#" * (512_000 - len(HELLO))
    assert (await api.ask("POST", "/jobs", data=just.encode(), headers=YAML)).status == 200


async def test_a_stream_that_is_too_large(api: Served) -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b"#" * 10_000

    answer = await api.ask("POST", "/jobs", data=endless(), headers=YAML)
    assert answer.status == 413


async def test_compressed_bodies_are_counted_as_they_are_unpacked(api: Served) -> None:
    headers = {**YAML, "Content-Encoding": "gzip"}
    packed = gzip.compress(HELLO.encode())
    assert (await api.ask("POST", "/jobs", data=packed, headers=headers)).status == 200
    bomb = gzip.compress(b"#" * 50_000_000)
    assert len(bomb) < 60_000
    assert (await api.ask("POST", "/jobs", data=bomb, headers=headers)).status == 413
    broken = await api.ask("POST", "/jobs", data=b"no gzip at all", headers=headers)
    assert broken.status == 400
    assert broken.message


@pytest.mark.parametrize("body", ["", "just text", "- a\n- b", "name: [", "\x00", "a: &a [*a]"])
async def test_what_is_no_job(api: Served, body: str) -> None:
    answer = await api.ask("POST", "/jobs", data=body.encode(), headers=YAML)
    assert answer.status == 400
    assert answer.json["faults"]


@pytest.mark.parametrize("escape", ["\\ud800", "\\u0000", "\\ufffe", "\\ud83d\\ude00"])
async def test_odd_characters(api: Served, escape: str) -> None:
    body = f'{{"name": "a{escape}", "tasks": [{{"name": "t", "run": "x"}}]}}'
    answer = await api.ask("POST", "/jobs", data=body, headers=JSON)
    assert answer.status in (200, 400)
    assert (await api.get("/jobs")).status == 200


async def test_dry_run_stores_nothing(api: Served) -> None:
    body = HELLO + "secrets: {token: hunter2}\n"
    answer = await api.ask("POST", "/jobs?dryRun=true", data=body, headers=YAML)
    assert answer.status == 200
    assert answer.json["name"] == "hello"
    assert answer.json["tasks"] == [{"name": "say", "image": "alpine", "run": "echo hello"}]
    assert answer.json["secrets"] == {"token": "[REDACTED]"}
    assert (await api.get("/jobs")).json["totalItems"] == 0
    bare = await api.ask("POST", "/jobs?dryRun", data=body, headers=YAML)
    assert bare.json["tasks"] == answer.json["tasks"]
    bad = await api.ask("POST", "/jobs?dryRun=true", data="name: x", headers=YAML)
    assert bad.status == 400
    nobody = HELLO + "permissions: [{user: nobody}]\n"
    assert (await api.ask("POST", "/jobs?dryRun=1", data=nobody, headers=YAML)).status == 400
    odd = await api.ask("POST", "/jobs?dryRun=perhaps", data=HELLO, headers=YAML)
    assert odd.status == 400


async def test_an_idempotency_key(api: Served) -> None:
    first = await api.submit(**{"Idempotency-Key": "k1"})
    assert await api.submit(**{"Idempotency-Key": "k1"}) == first
    assert (await api.submit(**{"Idempotency-Key": "k2"}))["id"] != first["id"]
    headers = {**YAML, "Idempotency-Key": "k1"}
    other = await api.ask("POST", "/jobs", data=HELLO + "\n", headers=headers)
    assert other.status == 409
    for key in ("", "a b", "x" * 256):
        headers = {**YAML, "Idempotency-Key": key}
        assert (await api.ask("POST", "/jobs", data=HELLO, headers=headers)).status == 400


async def test_waiting_for_the_end(api: Served) -> None:
    waiting = asyncio.create_task(api.submit(HELLO + "wait: {timeout: 20s}\n"))
    await api.commands.become(await api.commands.submitted.get(), "FAILED", error="boom")
    job = await waiting
    assert (job["state"], job["error"]) == ("FAILED", "boom")
    assert len(job["tasks"]) == 1
    assert job["execution"] == []


async def test_waiting_in_vain(api: Served) -> None:
    body = HELLO + "wait: {timeout: 50ms}\n"
    answer = await api.ask("POST", "/jobs", data=body, headers=YAML)
    assert (answer.status, answer.message) == (408, "timeout waiting for job to complete")
    assert (await api.get("/jobs")).json["totalItems"] == 1


async def test_secrets_of_all_jobs_above_are_redacted(api: Served) -> None:
    top = await api.submit(HELLO + "secrets: {token: hunter2}\n")
    parent = await api.task(top["id"])
    middle = await api.submit()
    middle_task = await api.task(middle["id"], id="m1")
    low = await api.submit(HELLO.replace("echo hello", "echo hunter2"))
    await api.commands.become(middle["id"], "RUNNING", parent_id=parent.id, root_id=top["id"])
    await api.commands.become(
        low["id"], "COMPLETED", parent_id=middle_task.id, root_id=top["id"], result="x hunter2"
    )
    await api.task(low["id"], id="l1", result="hunter2", var="v")
    shown = await api.get(f"/jobs/{low['id']}")
    assert "hunter2" not in shown.text
    assert shown.json["parentId"] == "m1"
    assert "hunter2" not in (await api.get("/jobs")).text
    assert "hunter2" not in (await api.get("/tasks/l1")).text


async def test_a_group_that_is_switched_off(start: Serve) -> None:
    from shared.config.tree import ApiSwitches, Config, CoordinatorSettings

    switches = ApiSwitches(nodes=False, queues=False, users=False, metrics=False)
    api = await start(Config(coordinator=CoordinatorSettings(api=switches)))
    for path in ("/nodes", "/queues", "/users", "/metrics"):
        assert (await api.get(path)).status == 404
    assert (await api.get("/jobs")).status == 200
    assert "/nodes" not in (await api.get("/openapi.json")).json["paths"]
