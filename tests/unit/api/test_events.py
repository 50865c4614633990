"""GET /events."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

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
        while len(api.commands._listeners) < 3:
            await api.get("/health")
        await api.commands.become(one, "RUNNING")
        await api.commands.become(two, "RUNNING")
        assert json.loads((await firsts[0]).data)["jobId"] == two
        assert json.loads((await firsts[2]).data)["jobId"] == one
        assert not firsts[1].done()
        firsts[1].cancel()
        await asyncio.wait(firsts)


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
