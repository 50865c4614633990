"""Jobs: the seed's examples, paging, search, commands, and every refusal."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from coordinator.api import context, submissions, view_data
from coordinator.store.sqlite import SqliteStore
from shared import redaction
from shared.encryption import Vault
from shared.model import decoding, language
from shared.model.documents import Actor, DeliveryDocument, JobDocument
from shared.model.queries import Change
from shared.model.states import DeliveryState, JobState
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


async def test_an_answer_has_no_more_than_so_many_bytes_of_tasks(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond is abridged, not cut off: a client sees all tasks, and asks for one of them."""
    monkeypatch.setattr(view_data, "MAX_ANSWER_BYTES", 100_000)
    most = 0
    job = await api.submit()
    for n in range(1, 101):
        await api.task(
            job["id"],
            id=f"t{n:03}",
            created_at=n,
            started_at=n,
            state="COMPLETED",
            var=f"v{n:03}",
            result="x" * 10_000,
        )
    for path, key in [
        (f"/jobs/{job['id']}", "execution"),
        (f"/jobs/{job['id']}/tasks?size=1000", "items"),
        (f"/jobs/{job['id']}/tasks?size=1000&order=failed&state=completed", "items"),
        (f"/jobs/{job['id']}?execution=false", ""),
    ]:
        answer = await api.get(path)
        assert answer.status == 200
        most = max(most, len(answer.body))
        tasks = answer.json[key] if key else []
        assert [task["id"] for task in tasks] == [f"t{n:03}" for n in range(1, 101)] or not key
        whole = [task for task in tasks if "abridged" not in task]
        assert all(task["run"] and task["result"] for task in whole)
        assert not any("result" in task or "run" in task for task in tasks if task not in whole)
        assert 10 <= len(whole) < 30 or not key
        results = answer.json.get("context", {}).get("tasks", {})
        assert key == "items" or 10 <= len(results) < 90
        assert not results or "v100" in results, "the newest"
    assert most < 1_000_000
    assert "abridged" not in (await api.get("/tasks/t001")).json
    page = (await api.get(f"/jobs/{job['id']}/tasks?size=5&page=3")).json["items"]
    assert [task["id"] for task in page] == [f"t{n:03}" for n in range(11, 16)]
    assert not any("abridged" in task for task in page)


async def test_a_list_of_jobs_has_no_more_than_so_many_bytes(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_data, "MAX_ANSWER_BYTES", 100_000)
    monkeypatch.setattr(view_data, "_CHUNK_BYTES", 40_000)
    ids = [(await api.submit())["id"] for _ in range(20)]
    await api.store.change_many(
        [Change(kind=JobDocument, id=id, set={"result": "x" * 10_000}) for id in ids]
    )
    read: list[int] = []
    get_many = api.store.get_many

    async def counted(kind: type[Any], wanted: Sequence[str]) -> list[Any]:
        read.append(len(wanted))
        return await get_many(kind, wanted)

    monkeypatch.setattr(api.store, "get_many", counted)
    answer = await api.get("/jobs?size=100")
    assert len(answer.body) < 120_000
    items = answer.json["items"]
    assert [each["id"] for each in items] == ids[::-1]
    whole = [each for each in items if "abridged" not in each]
    assert len(whole) == 9
    assert all(each["result"] for each in whole)
    assert not any("result" in each for each in items if each not in whole)
    assert max(read) <= 8
    assert read[-1] <= 4, "few at a time"
    assert (await api.get(f"/jobs/{ids[0]}")).json["result"]


async def test_a_list_of_scheduled_jobs_has_no_more_than_so_many_bytes(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_data, "MAX_ANSWER_BYTES", 50_000)
    text = f"{HELLO}inputs:\n  a: {'x' * 10_000}\nschedule:\n  cron: '@daily'\n"
    for _ in range(8):
        await api.ask("POST", "/scheduled-jobs", data=text, headers=YAML)
    items = (await api.get("/scheduled-jobs?size=100")).json["items"]
    assert len(items) == 8
    assert [len(each["tasks"]) for each in items] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert all(each["abridged"] for each in items[4:])
    assert "abridged" not in (await api.get(f"/scheduled-jobs/{items[-1]['id']}")).json


async def test_what_was_sealed_with_a_key_that_is_gone_is_listed_and_says_why(
    start: Serve, folder: Path
) -> None:
    sealed: dict[str, str] = {}
    for key, old in (("first", []), ("second", ["first"]), ("third", ["second"])):
        store = SqliteStore(folder / "haulier.db", Vault(key, old))
        await store.start()
        api = await start(shared=store)
        text = HELLO.replace("hello", f"said in the {key}")
        sealed[key] = (await api.submit(text))["id"]
        text += "schedule:\n  cron: '@daily'\n"
        await api.ask("POST", "/scheduled-jobs", data=text, headers=YAML)
        await api.task(sealed[key], id=f"t{key}", name=f"said in the {key}", result=key, var="said")
        if key != "third":
            await store.close()
    for path in ("/jobs", "/scheduled-jobs"):
        items = (await api.get(path)).json["items"]
        assert [each["name"] for each in items[:2]] == ["said in the third", "said in the second"]
        assert items[2]["name"] == "[REDACTED]"
        assert "encryption.old_keys" in items[2]["error"]
        assert not any("error" in each for each in items[:2])
    gone = sealed["first"]
    for path in (f"/jobs/{gone}", f"/jobs/{gone}/tasks", "/tasks/tfirst", f"/jobs/{gone}/why"):
        answer = await api.get(path)
        assert answer.status == 200
        assert "said in" not in answer.text
    assert "encryption.old_keys" in (await api.get("/tasks/tfirst")).json["error"]
    again = await api.ask("POST", f"/jobs/{gone}/rerun")
    assert again.status == 500
    assert "encryption.old_keys" in again.message
    await store.close()


async def test_scheduled_jobs_are_found_by_id_its_beginning_or_name(api: Served) -> None:
    ids = []
    for name in ("nightly", "nightly", "weekly", "daily"):
        text = HELLO.replace("hello", name, 1) + "schedule:\n  cron: '@daily'\n"
        ids.append((await api.ask("POST", "/scheduled-jobs", data=text, headers=YAML)).json["id"])

    async def meant(which: str) -> list[str]:
        page = (await api.get(f"/scheduled-jobs?which={which}&size=1")).json
        assert page["totalItems"] == page["totalPages"]
        pages = range(1, page["totalPages"] + 1)
        found = [
            await api.get(f"/scheduled-jobs?which={which}&size=1&page={each}") for each in pages
        ]
        return [item["id"] for answer in found for item in answer.json["items"]]

    assert sorted(await meant("nightly")) == sorted(ids[:2])
    assert await meant("weekly") == await meant(ids[2]) == await meant(ids[2][:8]) == [ids[2]]
    assert await meant("week") == await meant(ids[2][:5]) == await meant("none") == []


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
        "index": 3,
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


@pytest.mark.parametrize("query", ["page=x", "size=x", "page=1.5", "size=%D9%A1", "page=1e3"])
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
    bad = await api.ask("POST", "/jobs?dryRun=true", data="name: x", headers=YAML)
    assert bad.status == 400
    nobody = HELLO + "permissions: [{user: nobody}]\n"
    assert (await api.ask("POST", "/jobs?dryRun=1", data=nobody, headers=YAML)).status == 400
    for odd in ("=perhaps", "=", ""):
        answer = await api.ask("POST", f"/jobs?dryRun{odd}", data=HELLO, headers=YAML)
        assert (answer.status, answer.message) == (400, "dryRun: must be true or false")
    assert (await api.get("/jobs")).json["totalItems"] == 0


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


async def test_all_who_wait_listen_once_and_look_at_small_documents(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_many, read = api.store.get_many, Counter[str]()

    async def counted(kind: type[Any], ids: Sequence[str]) -> list[Any]:
        read.update(ids if kind is JobDocument else ())
        return await get_many(kind, ids)

    monkeypatch.setattr(api.store, "get_many", counted)
    waiting = [asyncio.create_task(api.submit(HELLO + "wait: {timeout: 20s}\n")) for _ in range(10)]
    ids = [await api.commands.submitted.get() for _ in waiting]
    await asyncio.sleep(1.2)
    assert len(api.commands._listeners) == 1
    assert not read
    for id in ids:
        await api.commands.become(id, "COMPLETED")
    assert {job["id"] for job in await asyncio.gather(*waiting)} == set(ids)
    assert not api.commands._listeners


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
    from shared.config.schema import ApiSwitches, Config, CoordinatorSettings

    switches = ApiSwitches(nodes=False, queues=False, users=False, metrics=False)
    api = await start(Config(coordinator=CoordinatorSettings(api=switches)))
    for path in ("/nodes", "/queues", "/users", "/metrics"):
        assert (await api.get(path)).status == 404
    assert (await api.get("/jobs")).status == 200
    assert "/nodes" not in (await api.get("/openapi.json")).json["paths"]


async def test_a_detached_sub_job_keeps_the_secrets_of_a_parent_that_is_gone(api: Served) -> None:
    definition = language.JobDefinition(name="sub", inputs={"x": "made of hunter2-and-more"})
    job = JobDocument(
        id="sub",
        name="sub",
        definition=definition,
        detached_from="a-task-that-is-gone",
        inherited_secrets=["hunter2-and-more"],
        state=JobState.COMPLETED,
        result="hunter2-and-more",
        created_at=api.store.now(),
    )
    assert await api.store.insert(job)
    for path in ("/jobs/sub", "/jobs"):
        shown = (await api.get(path)).text
        assert "hunter2" not in shown
        assert "[REDACTED]" in shown


async def test_what_webhooks_were_told(api: Served) -> None:
    job = (await api.submit())["id"]
    kinds: list[dict[str, Any]] = [
        {"state": DeliveryState.DELIVERED, "attempts": 1, "status": 204, "answered_at": 3_000_000},
        {"attempts": 2, "error": "TimeoutError", "due_at": 2_000_000},
    ]
    for number, fields in enumerate(kinds, start=1):
        delivery = DeliveryDocument(
            id=f"d{number}",
            job_id=job,
            event="job.StateChange",
            url="http://receiver.example/",
            sequence=number,
            created_at=number,
            **fields,
        )
        await api.store.insert(delivery)
    second, first = (await api.get(f"/jobs/{job}/deliveries")).json["items"]
    assert (first["state"], first["attempts"], "next" in first) == ("DELIVERED", 1, False)
    assert (first["status"], first["answeredAt"]) == (204, "1970-01-01T00:00:03.000000Z")
    assert (second["state"], second["error"]) == ("PENDING", "TimeoutError")
    assert not {"status", "answeredAt"} & set(second)
    assert second["next"] == "1970-01-01T00:00:02.000000Z"
    assert (await api.get("/jobs/ffffffff/deliveries")).status == 404


async def test_what_looks_for_many_secrets_is_never_made_on_the_loop(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread, made_in = threading.get_ident(), set[int]()
    patterns = redaction._patterns

    def looked_for(values: Collection[str]) -> Any:
        if values:
            made_in.add(threading.get_ident())
        return patterns(values)

    async def untold(job: JobDocument) -> None:
        """Tell nobody: how events are made is the engine's."""

    monkeypatch.setattr(redaction, "_patterns", looked_for)
    monkeypatch.setattr(api.commands, "tell", untold)
    paths = ("/jobs?dryRun=true", "/scheduled-jobs?dryRun=true", "/scheduled-jobs")
    for number, path in enumerate(paths):
        secret = f"secrets: {{s: {f'{number}abc' * 500}}}\n"
        when = "schedule: {cron: 0 5 * * *}\n" if "scheduled" in path else ""
        answer = await api.ask("POST", path, data=HELLO + secret + when, headers=YAML)
        assert answer.status == 200, answer.text
    redaction._automata.clear()
    redaction._wanted.cache_clear()
    made = await api.ask("POST", f"/scheduled-jobs/{answer.json['id']}/run")
    assert made.status == 200
    assert made_in
    assert loop_thread not in made_in


async def test_one_users_jobs_with_many_secrets_delay_others_by_one_turn(api: Served) -> None:
    order: list[str] = []
    parts = api.runner.app[context.API]

    async def look(user: str, number: int) -> None:
        context.set_caller(context.Caller(Actor(id=user, username=user)))
        await view_data.redactor_for(parts, [f"{user}{number}" * 500])
        order.append(user)

    await asyncio.gather(
        *(asyncio.create_task(look("many", number)) for number in range(20)),
        asyncio.create_task(look("one", 0)),
    )
    assert order.index("one") <= 2


async def test_a_result_made_to_match_is_never_searched_on_the_loop(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread, searched_in, scanned = threading.get_ident(), list[int](), redaction._scanned

    def noted(automaton: Any, text: str) -> str:
        if len(text) > redaction.LONG_TEXT:
            searched_in.append(threading.get_ident())
        return scanned(automaton, text)

    monkeypatch.setattr(redaction, "_scanned", noted)
    job = await api.submit(HELLO + "secrets: {k: aaaa}\n")
    long = "a" * (redaction.LONG_TEXT + 1)
    task = await api.task(job["id"], state="COMPLETED", var="x", result=f"task {long}")
    change = Change(kind=JobDocument, id=job["id"], set={"result": f"job {long}"})
    await api.store.change(change)
    for _ in range(2):
        shown = (await api.get(f"/jobs/{job['id']}")).json
        assert shown["result"] == "job [REDACTED]"
        assert shown["context"]["tasks"]["x"] == "task [REDACTED]"
        assert (await api.get(f"/tasks/{task.id}")).json["result"] == "task [REDACTED]"
        assert (await api.get("/jobs")).json["items"][0]["result"] == "job [REDACTED]"
    assert len(searched_in) == 2, "it is remembered"
    assert loop_thread not in searched_in


async def test_what_a_key_hides_is_hidden_wherever_a_template_brought_it(api: Served) -> None:
    body = HELLO + "inputs: {API_TOKEN: hidden-by-key, MAX_TOKENS: '4096'}\n"
    job = (await api.submit(body))["id"]
    command = ["login", "hidden-by-key", "4096"]
    evaluated = language.TaskDefinition(name="say", image="a", cmd=command, env={"X": command[1]})
    task = await api.task(job, definition=evaluated, result="got hidden-by-key")
    delivery = DeliveryDocument(
        id="d", job_id=job, event="e", url="http://h/?t=hidden-by-key", line="l", sequence=1, due_at=1, created_at=1
    )  # fmt: skip
    await api.store.insert(delivery)
    for path in (f"/jobs/{job}", f"/jobs/{job}/deliveries", f"/tasks/{task.id}"):
        answer = await api.get(path)
        assert "hidden-by-key" not in answer.text
    shown = (await api.get(f"/tasks/{task.id}")).json
    assert (shown["cmd"], shown["env"]) == (["login", "[REDACTED]", "4096"], {"X": "[REDACTED]"})


async def test_long_documents_of_one_user_keep_no_short_one_waiting(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "DOCUMENTS_WAITING", 16)
    api = await start()
    begun, go_on = asyncio.Event(), threading.Event()
    loop, decode = asyncio.get_running_loop(), decoding.decode_job

    def slow(body: bytes, *more: Any, **named: Any) -> language.JobDefinition:
        if len(body) > len(HELLO):
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(20)
        return decode(body, *more, **named)

    monkeypatch.setattr(submissions, "decode_job", slow)
    long = HELLO + "# " + "x" * 100_000
    path, most = "/jobs?dryRun=true", context.DOCUMENTS_AT_ONCE + context.DOCUMENTS_WAITING
    asked = [
        asyncio.ensure_future(api.ask("POST", path, data=long, headers=YAML))
        for _ in range(most + 4)
    ]
    try:
        await begun.wait()
        async with asyncio.timeout(5):
            short = await api.ask("POST", path, data=HELLO, headers=YAML)
        assert short.status == 200
        async with asyncio.timeout(5):
            while sum(each.done() for each in asked) < 4:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.02)
    finally:
        go_on.set()
    answers = await asyncio.gather(*asked)
    refused = [each for each in answers if each.status == 429]
    assert len(refused) == 4
    assert all(each.headers["Retry-After"] for each in refused)
    assert {each.status for each in answers} == {200, 429}
