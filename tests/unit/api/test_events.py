"""GET /events."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, aclosing

import msgspec
import pytest

from coordinator.api import events
from coordinator.api.events import FEED
from shared.model.documents import Document, JobDocument
from shared.model.messages import StateChanged
from tests.unit.api.served import HELLO, Served


async def test_state_changes_as_they_happen(api: Served) -> None:
    before = (await api.submit())["id"]
    async with aclosing(api.stream("/events")) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await api.commands.listened.wait()
        await api.commands.become(before, "RUNNING")
        event = await waiting
        assert event.name == "job.StateChange"
        data = json.loads(event.data)
        assert data["type"] == "job.StateChange"
        assert data["id"] == data["jobId"] == before
        assert data["state"] == "RUNNING"
        assert data["at"].endswith("Z")
        await api.commands.become(before, "COMPLETED")
        assert json.loads((await anext(stream)).data)["state"] == "COMPLETED"


async def test_filters(api: Served) -> None:
    one, two = (await api.submit())["id"], (await api.submit())["id"]
    async with (
        aclosing(api.stream(f"/events?job={two}")) as of_two,
        aclosing(api.stream("/events?type=task")) as of_tasks,
        aclosing(api.stream("/events?type=job.statechange")) as of_jobs,
    ):
        streams = (of_two, of_tasks, of_jobs)
        firsts = [asyncio.ensure_future(anext(stream)) for stream in streams]
        while api.runner.app[FEED]._readers < 3:
            await api.get("/health")
        await api.commands.become(one, "RUNNING")
        await api.commands.become(two, "RUNNING")
        assert json.loads((await firsts[0]).data)["jobId"] == two
        assert json.loads((await firsts[2]).data)["jobId"] == one
        assert not firsts[1].done()
        firsts[1].cancel()
        await asyncio.wait(firsts)


async def test_the_job_may_be_shortened_and_must_be_there(api: Served) -> None:
    job = (await api.submit())["id"]
    async with aclosing(api.stream(f"/events?job={job[:8]}")) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await api.commands.listened.wait()
        await api.commands.become(job, "RUNNING")
        async with asyncio.timeout(5):
            assert json.loads((await waiting).data)["jobId"] == job
    assert (await api.get("/events?job=nobody")).status == 404


async def test_events_of_sub_jobs_hold_no_secret_of_the_jobs_above(api: Served) -> None:
    top = await api.submit(HELLO + "secrets: {token: hunter2}\n")
    parent = await api.task(top["id"])
    low = (await api.submit(HELLO.replace("hello", "with hunter2", 1)))["id"]
    await api.commands.become(low, "SCHEDULED", parent_id=parent.id, root_id=top["id"])
    async with aclosing(api.stream(f"/events?job={low}")) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await api.commands.listened.wait()
        await api.commands.become(low, "RUNNING", result="hunter2")
        event = await waiting
        assert json.loads(event.data)["name"] == "with [REDACTED]"
        assert "hunter2" not in event.data


async def test_any_number_of_readers_costs_one_read(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await api.submit())["id"]
    reads = 0
    get = api.store.get

    async def counted(kind: type[Document], id: str) -> Document | None:
        nonlocal reads
        reads += kind is JobDocument and id == job
        return await get(kind, id)

    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(api.stream("/events"))) for _ in range(20)
        ]
        firsts = [asyncio.ensure_future(anext(stream)) for stream in streams]
        while api.runner.app[FEED]._readers < len(streams):
            await api.get("/health")
        assert len(api.commands._listeners) == 1
        monkeypatch.setattr(api.store, "get", counted)
        await api.commands.become(job, "RUNNING")
        events = await asyncio.gather(*firsts)
    assert {json.loads(event.data)["state"] for event in events} == {"RUNNING"}
    assert reads == 1


async def test_a_reader_who_was_too_slow_hears_how_many_it_missed(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT_EVENTS", 3)
    job = (await api.submit())["id"]
    feed = api.runner.app[FEED]
    async with aclosing(api.stream("/events")) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await api.commands.listened.wait()
        event = StateChanged(type="job.StateChange", job_id=job, state="RUNNING", at=1)
        for at in range(5):
            feed.hear(msgspec.structs.replace(event, at=at))
        missed = await waiting
        assert (missed.name, json.loads(missed.data)) == ("missed", {"missed": 2})
        assert [(await anext(stream)).name for _ in range(3)] == ["job.StateChange"] * 3


async def test_a_server_that_stops_does_not_wait_for_its_readers(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_LOOK", 60.0)
    async with aclosing(api.stream("/events")) as stream:
        waiting = asyncio.ensure_future(anext(stream, None))
        await api.commands.listened.wait()
        async with asyncio.timeout(5):
            await api.runner.cleanup()
        assert await waiting is None


def test_what_readers_may_be_behind_is_bounded_in_bytes(api: Served) -> None:
    feed = api.runner.app[FEED]
    for _ in range(200):
        feed.hear(
            StateChanged(type="t", job_id="j", state="x", at=1, summary={"result": "x" * 200_000})
        )
    kept = [feed.event(number) for number in range(feed.first, feed.end)]
    assert 50 < len(kept) < 100
    assert sum(each.size for each in kept) <= events.KEPT_BYTES
