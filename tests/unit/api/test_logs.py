"""Logs: pages, the download, and streams that neither repeat nor leave out."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import aiohttp
import pytest

from coordinator.api import log_follower, log_parts, logs
from coordinator.api.context import API, caller
from coordinator.api.http import MOST_WORDS
from coordinator.api.log_cursor import LogCursor, LogPlace, read_cursor, write_cursor
from haulier.sse import ServerEvent
from shared.config.schema import BasicAuth
from shared.errors import StoreUnavailable
from shared.model import language
from shared.model.documents import MICROS_PER_SECOND, JobDocument, Pulse, TaskDocument, UserDocument
from shared.model.queries import Change
from tests.unit.api.conftest import Serve
from tests.unit.api.served import Served, configured, signed_in


def lines(events: list[ServerEvent]) -> list[str]:
    return [event.data for event in events if event.name == "message"]


async def ended(
    api: Served, *contents: str, who: Mapping[str, str] | None = None, **fields: Any
) -> tuple[str, TaskDocument]:
    """A job that ended, with one task and its log."""
    job = (await api.submit(**(who or {})))["id"]
    values = {"state": "COMPLETED", "run": 1, "log_parts": len(contents), **fields}
    task = await api.task(job, ended_at=api.store.now(), **values)
    await api.log(task, *contents)
    await api.commands.become(job, "COMPLETED")
    return job, task


async def test_parts_newest_first(api: Served) -> None:
    job, task = await ended(api, "a\nb\n", "c\n", "d\n")
    for path in (f"/jobs/{job}/log", f"/tasks/{task.id}/log"):
        page = (await api.get(f"{path}?size=2")).json
        assert [part["contents"] for part in page["items"]] == ["d\n", "c\n"]
        assert page["items"][0]["number"] == 3
        assert page["items"][0]["taskId"] == task.id
        assert set(page["items"][0]) == {"id", "number", "taskId", "contents", "createdAt"}
        assert (page["size"], page["totalPages"], page["totalItems"]) == (2, 2, 3)
        found = (await api.get(f"{path}?q=B")).json
        assert [part["number"] for part in found["items"]] == [1]
    assert (await api.get(f"/jobs/{job}/log?size=x")).status == 400


async def test_an_empty_parameter_is_as_good_as_none(api: Served) -> None:
    job, task = await ended(api, "a\n", "b\n")
    for path in (f"/jobs/{job}/log", f"/tasks/{task.id}/log"):
        whole = await api.get(path)
        empty = await api.get(f"{path}?page=&size=&q=&order=&tail=&since=")
        assert (empty.status, empty.json) == (200, whole.json)
        streamed = await api.get(f"{path}/stream?format=")
        assert streamed.status == 200


async def test_a_search_has_few_words_each_once(api: Served) -> None:
    job, task = await ended(api, "one two\n")
    many = "+".join(f"word{n}" for n in range(MOST_WORDS + 1))
    for path in (f"/jobs/{job}/log", f"/tasks/{task.id}/log", "/jobs"):
        answer = await api.get(f"{path}?q={many}")
        assert (answer.status, answer.message) == (400, "q: at most 16 different words")
        assert (await api.get(f"{path}?q={'one+' * 1000}")).json["totalItems"] == ("/log" in path)


async def test_searches_of_logs_leave_room_for_other_readers_of_logs(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = await ended(api, "one\n")
    at_once, most, search = 0, 0, api.store.log_page

    async def slow(**asked: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return await search(**asked)

    monkeypatch.setattr(api.store, "log_page", slow)
    answers = await asyncio.gather(*(api.get(f"/jobs/{job}/log?q=one") for _ in range(5)))
    assert [answer.json["totalItems"] for answer in answers] == [1] * 5
    assert most == 1


async def test_a_page_holds_up_to_1000_parts(api: Served) -> None:
    job, _ = await ended(api, *(f"{n}\n" for n in range(1020)))
    assert (await api.get(f"/jobs/{job}/log")).json["size"] == 25
    assert (await api.get(f"/jobs/{job}/log?size=5000")).json["size"] == 1000


async def test_only_the_run_that_counts(api: Served) -> None:
    job, task = await ended(api, "lost\n", run=2, log_parts=1)
    await api.log(task, "kept\n", run=2)
    for path in (f"/jobs/{job}/log", f"/tasks/{task.id}/log", f"/tasks/{task.id}/log?q=t"):
        page = (await api.get(path)).json
        assert [part["contents"] for part in page["items"]] == ["kept\n"]
    assert (await api.get(f"/jobs/{job}/log/download")).text == "kept\n"
    assert lines(await api.events(f"/jobs/{job}/log/stream")) == ["kept"]


async def test_download(api: Served) -> None:
    job, _ = await ended(api, "a\r\nb\n", "c\n\n")
    second = await api.task(job, id="t0", created_at=api.store.now() + 1, run=1, state="COMPLETED")
    await api.log(second, "é\x00end")
    answer = await api.get(f"/jobs/{job}/log/download")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert f"{job}.log" in answer.headers["Content-Disposition"]
    assert answer.text == "a\r\nb\nc\n\né\x00end"


async def test_two_tasks_never_share_a_line(api: Served) -> None:
    """Case 6."""
    job, _ = await ended(api, "no newline", " at end")
    logs_of = [["second"], [], ["\n"], ["third\n"], ["last"]]
    for position, contents in enumerate(logs_of, start=2):
        task = await api.task(
            job, position=position, state="COMPLETED", run=1, log_parts=len(contents)
        )
        await api.log(task, *contents)
    text = (await api.get(f"/jobs/{job}/log/download")).text
    assert text == "no newline at end\nsecond\n\nthird\nlast"


async def test_the_stream_of_what_has_ended(api: Served) -> None:
    job, task = await ended(api, "a\nb\n", "\nc\r\nd\re\n")
    for path in (f"/jobs/{job}/log/stream", f"/tasks/{task.id}/log/stream"):
        events = await api.events(path)
        assert lines(events) == ["a", "b", "", "c", "d\ne"]
        assert events[-1].name == "end"
        assert json.loads(events[-1].data) == {"state": "COMPLETED"}


READER = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
connection.sendall(f"GET {sys.argv[3]} HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n".encode())
events = 0
while some := connection.recv(2**20):
    events += some.count(b"d")
print(events)
"""


@pytest.mark.slow
async def test_a_long_log_leaves_room_for_other_requests(api: Served) -> None:
    job, _ = await ended(api, *(["\n" * 30_000] * 4))
    # The reader is a process of its own, faster than the log is written: the stream never waits for it.
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-c", READER, api.host, str(api.port), f"/jobs/{job}/log/stream"),
        stdout=asyncio.subprocess.PIPE,
    )
    longest = 0.0
    ended_at = asyncio.create_task(reader.wait())
    while not ended_at.done():
        asked_at = time.monotonic()
        assert (await api.get("/health")).status == 200
        longest = max(longest, time.monotonic() - asked_at)
    assert reader.stdout is not None
    assert int(await reader.stdout.read()) > 120_000
    assert longest < 1


async def test_lines_as_json(api: Served) -> None:
    job, task = await ended(api, "a\n")
    (event, _) = await api.events(f"/jobs/{job}/log/stream?format=json")
    part = json.loads(event.data)
    assert (part["taskId"], part["number"], part["contents"]) == (task.id, 1, "a\n")
    assert (await api.get(f"/jobs/{job}/log/stream?format=xml")).status == 400


async def test_the_beginning_of_a_line_is_told_as_such(api: Served) -> None:
    """A prompt is sent before its line ends: whoever reads parts joins the rest to it."""
    job, _ = await ended(api, "waiting ... \r", "done\n", "next\r\n")
    for form in ("json", "parts"):
        found = await api.events(f"/jobs/{job}/log/stream?format={form}")
        told = [json.loads(event.data)["contents"] for event in found if event.name == "message"]
        assert told == ["waiting ... \r", "done\n", "next\n"]
    text = await api.events(f"/jobs/{job}/log/stream")
    assert lines(text) == ["waiting ... ", "done", "next"]


async def test_a_tail_counts_lines_and_not_what_a_progress_bar_writes_over(api: Served) -> None:
    _, task = await ended(api, "x\ry\rz\n1\u2028\n2\n")
    for tail, kept in ((3, "x\ry\rz\n1\u2028\n2\n"), (2, "1\u2028\n2\n"), (1, "2\n")):
        page = (await api.get(f"/tasks/{task.id}/log?tail={tail}")).json
        assert [part["contents"] for part in page["items"]] == [kept]


async def test_a_tail_has_each_part_once_also_of_those_of_one_time(api: Served) -> None:
    job, task = await ended(api)
    other = await api.task(job, id="t2", position=2, state="COMPLETED", run=1)
    for at, numbers in ((5, range(1, 150)), (4, range(150, 160)), (6, range(160, 230))):
        for each in (task, other):
            await api.log(each, *(f"{each.id} {n}\n" for n in numbers), first=numbers[0], at=at)
    for query in ("", "&q=t", "&since=1970-01-01T00:00:00.000005%2B00:00"):
        whole = (await api.get(f"/jobs/{job}/log?tail=10000{query}")).json["items"]
        assert len({part["contents"] for part in whole}) == len(whole) == 458 - 20 * ("si" in query)
        for tail in (1, 99, 100, 101, 200):
            some = (await api.get(f"/jobs/{job}/log?tail={tail}{query}")).json["items"]
            assert some == whole[:tail]


async def test_a_tail_reads_each_part_once_and_counts_none(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = await ended(api, *(f"{n}\n" for n in range(2000)))
    asked: list[dict[str, Any]] = []
    read = api.store.log_page

    async def noted(**question: Any) -> Any:
        asked.append(question)
        return await read(**question)

    monkeypatch.setattr(api.store, "log_page", noted)
    assert (await api.get(f"/jobs/{job}/log?tail=100000")).json["totalItems"] == 2000
    assert len(asked) < 20
    assert sum(question["skip"] for question in asked) < 200
    assert not any(question["counted"] for question in asked)


@pytest.mark.parametrize("query", ["tail=101", "size=101", "q=a"])
async def test_long_pages_and_searches_of_one_user_delay_anothers_by_one(
    start: Serve, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    api = await start(
        configured(basic_auth=BasicAuth(enabled=True, username="root", password="pw"))
    )
    root, ann = signed_in("root", "pw"), signed_in("ann", "pw")
    await api.ask("POST", "/users", json={"username": "ann", "password": "pw"}, who=root)
    job, _ = await ended(api, "a\n" * 101, who=root)
    order: list[str] = []
    gate, read = asyncio.Event(), api.store.log_page

    async def held(**question: Any) -> Any:
        order.append(caller().actor.username)
        await gate.wait()
        return await read(**question)

    monkeypatch.setattr(api.store, "log_page", held)
    parts = api.runner.app[API]
    turns = parts.log_searches if query == "q=a" else parts.long_pages
    users = [user.id for user in await api.store.find(UserDocument, {})]
    asked = []
    for who, waiting in ((root, 0), (root, 1), (root, 2), (ann, 3)):
        asked.append(asyncio.create_task(api.get(f"/jobs/{job}/log?{query}", who=who)))
        while not order or sum(map(turns.waiting, users)) < waiting:
            await api.get("/health")
    gate.set()
    assert [answer.json["totalItems"] for answer in await asyncio.gather(*asked)] == [1] * 4
    assert order == ["root", "root", "ann", "root"]


async def test_a_short_tail_waits_for_no_long_page(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = await ended(api, "a\n" * 200)
    begun, gate, read = asyncio.Event(), asyncio.Event(), api.store.log_page

    async def first_held(**question: Any) -> Any:
        if not begun.is_set():
            begun.set()
            await gate.wait()
        return await read(**question)

    monkeypatch.setattr(api.store, "log_page", first_held)
    long = asyncio.create_task(api.get(f"/jobs/{job}/log?tail=101"))
    await begun.wait()
    short = (await api.get(f"/jobs/{job}/log?tail=100")).json
    assert not long.done()
    gate.set()
    counts = [page["items"][0]["contents"].count("\n") for page in (short, (await long).json)]
    assert counts == [100, 101]


async def test_resuming_anywhere_neither_repeats_nor_leaves_out(api: Served) -> None:
    job, _ = await ended(api, "1\n2\n", "3\n", "\n", "4\n5\n6\n")
    second = await api.task(job, id="t2", position=2, state="FAILED", run=1, log_parts=2)
    await api.log(second, "7\n8\n", "9\n")
    events = await api.events(f"/jobs/{job}/log/stream")
    whole = lines(events)
    assert whole == ["1", "2", "3", "", "4", "5", "6", "7", "8", "9"]
    for at, event in enumerate(events[:-1]):
        rest = await api.events(f"/jobs/{job}/log/stream", **{"Last-Event-ID": event.id})
        assert lines(rest) == whole[at + 1 :], event.id
        assert rest[-1].name == "end"


async def test_resuming_while_many_tasks_run(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_follower, "_WINDOW", 3)
    job = (await api.submit())["id"]
    for number in range(8):
        at = api.store.now()
        task = await api.task(job, id=f"t{number}", created_at=number // 3, ended_at=at)
        await api.store.change(
            Change(
                kind=TaskDocument, id=task.id, set={"state": "COMPLETED", "run": 1, "log_parts": 2}
            )
        )
        await api.log(task, f"{number}a\n{number}b\n", f"{number}c\n")
    await api.commands.become(job, "COMPLETED")
    events = await api.events(f"/jobs/{job}/log/stream")
    whole = lines(events)
    assert whole == [f"{number}{letter}" for number in range(8) for letter in "abc"]
    for at, event in enumerate(events[:-1]):
        rest = await api.events(f"/jobs/{job}/log/stream", **{"Last-Event-ID": event.id})
        assert lines(rest) == whole[at + 1 :], event.id


@pytest.mark.parametrize("id", ["x", "1", "1-a~b", "1-a~t.1.1", "9" * 30 + "-", "~" * 999])
async def test_an_id_that_is_none_of_ours_is_the_beginning(api: Served, id: str) -> None:
    job, task = await ended(api, "a\n", "b\n")
    for path in (f"/jobs/{job}", f"/tasks/{task.id}"):
        assert lines(await api.events(f"{path}/log/stream", **{"Last-Event-ID": id})) == ["a", "b"]


async def test_the_id_of_another_jobs_stream_is_the_beginning(api: Served) -> None:
    job, task = await ended(api, "a\n", "b\n")
    other, _ = await ended(api, "x\n", "y\n", id="other")
    for event in (await api.events(f"/jobs/{other}/log/stream"))[:2]:
        for path in (f"/jobs/{job}", f"/tasks/{task.id}"):
            heard = await api.events(f"{path}/log/stream", **{"Last-Event-ID": event.id})
            assert lines(heard) == ["a", "b"], event.id
            assert heard[-1].name == "end"


def test_a_cursor_reads_back() -> None:
    places = (LogPlace("t1", 1, 2, 3), LogPlace("t2", 1, 0, 0))
    assert read_cursor(write_cursor((12, "t3"), places)) == LogCursor((12, "t3"), places)
    assert read_cursor("") == LogCursor()


async def test_the_stream_is_live(api: Served) -> None:
    job = (await api.submit())["id"]
    async with aclosing(api.stream(f"/jobs/{job}/log/stream")) as stream:
        task = await api.task(job, state="RUNNING", run=1)
        await api.log(task, "first\n")
        assert (await anext(stream)).data == "first"
        await api.log(task, "third\n", first=3)
        await api.log(task, "second\n", first=2)
        assert (await anext(stream)).data == "second"
        assert (await anext(stream)).data == "third"
        fields = {"state": "COMPLETED", "log_parts": 4, "ended_at": api.store.now()}
        await api.store.change(Change(kind=TaskDocument, id=task.id, set=fields))
        await api.commands.become(job, "COMPLETED")
        await api.log(task, "late\n", first=4)
        assert (await anext(stream)).data == "late"
        assert (await anext(stream)).name == "end"
        assert await anext(stream, None) is None


async def test_a_newer_run_is_followed_from_its_beginning(api: Served) -> None:
    job = (await api.submit())["id"]
    task = await api.task(job, state="RUNNING", run=1)
    await api.log(task, "one\n", "two\n")
    async with aclosing(api.stream(f"/tasks/{task.id}/log/stream")) as stream:
        assert (await anext(stream)).data == "one"
        last = await anext(stream)
        await api.store.change(Change(kind=TaskDocument, id=task.id, set={"run": 2}))
        await api.log(task, "again\n", run=2)
        assert (await anext(stream)).data == "again"
    resumed = api.stream(f"/tasks/{task.id}/log/stream", **{"Last-Event-ID": last.id})
    async with aclosing(resumed) as stream:
        assert (await anext(stream)).data == "again"


async def test_a_cancelled_task_ends_its_stream(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "UNTOLD", 0.1)
    job, task = await ended(api, "a\n", state="CANCELLED", log_parts=None)
    events = await api.events(f"/tasks/{task.id}/log/stream")
    assert lines(events) == ["a"]
    assert json.loads(events[-1].data) == {"state": "CANCELLED"}
    skipped = await api.task(job, id="s", state="SKIPPED", ended_at=api.store.now())
    assert [event.name for event in await api.events(f"/tasks/{skipped.id}/log/stream")] == ["end"]


async def test_parts_that_never_come_are_given_up(api: Served) -> None:
    job, task = await ended(api, "a\n", log_parts=3)
    await api.log(task, "c\n", first=3)
    mark = api.store.now() + 31 * MICROS_PER_SECOND
    await api.store.insert(Pulse(id="pulse", stamps={"logs": mark}))
    assert lines(await api.events(f"/jobs/{job}/log/stream")) == ["a", "c"]
    assert (await api.get(f"/tasks/{task.id}/log")).json["totalItems"] == 2


async def test_an_answer_waits_for_parts_on_their_way(api: Served) -> None:
    job, task = await ended(api, "a\n", log_parts=2)
    asked = asyncio.create_task(api.get(f"/jobs/{job}/log"))
    downloaded = asyncio.create_task(api.get(f"/jobs/{job}/log/download"))
    await api.get("/health")
    assert not asked.done()
    await api.log(task, "b\n", first=2)
    assert (await asked).json["totalItems"] == 2
    assert (await downloaded).text == "a\nb\n"


@pytest.mark.slow
async def test_all_who_wait_for_the_same_parts_wait_together_and_look_ever_more_rarely(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, task = await ended(api, "a\n", log_parts=2)
    looks = []
    group_count = api.store.group_count

    async def counted(*args: Any) -> dict[str, int]:
        looks.append(args)
        return await group_count(*args)

    monkeypatch.setattr(api.store, "group_count", counted)
    asked = [asyncio.create_task(api.get(f"/jobs/{job}/log")) for _ in range(10)]
    await asyncio.sleep(2)
    assert 0 < len(looks) < 10
    assert not any(one.done() for one in asked)
    await api.log(task, "b\n", first=2)
    assert {answer.json["totalItems"] for answer in await asyncio.gather(*asked)} == {2}


async def test_composites_have_no_log_of_their_own(api: Served) -> None:
    job, _ = await ended(api, "a\n")
    parallel = language.Parallel(tasks=[language.TaskDefinition(name="x", run="x")])
    await api.task(job, id="p", definition=language.TaskDefinition(name="p", parallel=parallel))
    assert lines(await api.events(f"/jobs/{job}/log/stream")) == ["a"]


async def test_the_stream_of_a_job_that_is_deleted(api: Served) -> None:
    job = (await api.submit())["id"]
    async with aclosing(api.stream(f"/jobs/{job}/log/stream")) as stream:
        task = await api.task(job, state="RUNNING", run=1)
        await api.log(task, "a\n")
        assert (await anext(stream)).data == "a"
        await api.store.delete(TaskDocument, {"job_id": job})
        await api.store.delete(JobDocument, {"id": job})
        end = await anext(stream)
        assert (end.name, json.loads(end.data)) == ("end", {"state": "DELETED"})


async def test_any_number_of_followers_costs_no_more_than_one(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await api.submit())["id"]
    task = await api.task(job, state="RUNNING", run=1)
    await api.log(task, "a\n")
    asked: list[float] = []
    find = api.store.find

    async def counted(*args: Any, **more: Any) -> Any:
        asked.append(time.monotonic())
        return await find(*args, **more)

    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(api.stream(f"/jobs/{job}/log/stream")))
            for _ in range(30)
        ]
        assert [(await anext(stream)).data for stream in streams] == ["a"] * 30
        (turns,) = api.runner.app[API].log_turns.values()
        monkeypatch.setattr(api.store, "find", counted)
        first = turns.number
        await turns.after(first + 4)
        assert len(asked) <= 5 * (turns.number - first + 1)
        await api.log(task, "b\n", first=2)
        assert [(await anext(stream)).data for stream in streams] == ["b"] * 30
    while api.runner.app[API].log_turns:
        await api.get("/health")


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
async def test_tasks_that_say_nothing_cost_a_follower_nothing(
    api: Served, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Also those whose logs are on their way."""
    job = (await api.submit())["id"]
    fields = {"ended_at": api.store.now(), "log_parts": 1} if state == "COMPLETED" else {}
    for number in range(40):
        await api.task(job, id=f"s{number}", state=state, run=1, created_at=number, **fields)
    task = await api.task(job, id="t", state="RUNNING", run=1, created_at=50)
    await api.log(task, "0\n")
    reads = 0

    def counted(read: Any) -> Any:
        async def ask(*args: Any, **more: Any) -> Any:
            nonlocal reads
            reads += 1
            return await read(*args, **more)

        return ask

    async with aclosing(api.stream(f"/jobs/{job}/log/stream")) as stream:
        assert (await anext(stream)).data == "0"
        for name in ("find", "group_count"):
            monkeypatch.setattr(api.store, name, counted(getattr(api.store, name)))
        (turns,) = api.runner.app[API].log_turns.values()
        first = turns.number
        for number in range(1, 5):
            await api.log(task, f"{number}\n", first=number + 1)
            assert (await anext(stream)).data == str(number)
        await turns.after(turns.number + 1)
        assert reads <= 8 * (turns.number - first + 1)


async def test_a_reader_that_is_slow_misses_nothing_that_came_while_a_log_could_go_on(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await api.submit())["id"]
    now = api.store.now()
    monkeypatch.setattr(api.store, "now", lambda: now)
    running = {"state": "RUNNING", "run": 1}
    first = await api.task(job, id="t1", created_at=1, **running)
    second = await api.task(
        job, id="t2", created_at=2, **running | {"state": "CANCELLED", "ended_at": now}
    )
    await api.log(first, "a\n")
    of_job = await api.job(job)
    follower = log_follower.Follower(api.runner.app[API], of_job, None, LogCursor())
    async with aclosing(follower.lines()) as told:
        line = await anext(told)
        assert line is not None
        assert line.text == "a\n"
        await api.log(second, "b\n")
        now += 3 * MICROS_PER_SECOND
        async with asyncio.timeout(10):
            while (line := await anext(told)) is None:
                pass
        assert line.text == "b\n"


async def test_a_follower_keeps_little_of_a_long_log(api: Served) -> None:
    job, task = await ended(api, *["x" * 65_000 + "\n"] * 12, *["y\n"] * 300)
    batches = log_parts.batches_after(api.runner.app[API], task, 0)
    sizes = [log_parts.log_size(parts) async for parts in batches]
    assert len(sizes) < 20
    assert max(sizes) < 200_000
    assert len(await api.events(f"/jobs/{job}/log/stream")) == 313


async def test_streams_end_when_the_server_stops(api: Served) -> None:
    job = (await api.submit())["id"]
    task = await api.task(job, state="RUNNING", run=1)
    await api.log(task, "a\n")
    async with aclosing(api.stream(f"/jobs/{job}/log/stream")) as stream:
        assert (await anext(stream)).data == "a"
        await api.runner.cleanup()
        assert await anext(stream, None) is None


async def test_head_of_a_stream(api: Served) -> None:
    job = (await api.submit())["id"]
    answer = await api.ask("HEAD", f"/jobs/{job}/log/stream")
    assert (answer.status, answer.body) == (200, b"")


async def test_a_download_that_fails_is_cut_off(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = await ended(api, "a\n")

    async def breaks(*_: Any) -> Any:
        yield "a\n"
        raise StoreUnavailable("gone")

    monkeypatch.setattr(logs, "whole_log", breaks)
    with pytest.raises(aiohttp.ClientError):
        await api.get(f"/jobs/{job}/log/download")
    assert (await api.get("/health")).status == 200
