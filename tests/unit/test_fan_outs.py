"""Few fan-outs grow at a time, users in turn, and what waits for that keeps no message from being handled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.consumers import QueueConsumers
from coordinator.due.pulse_probes import PulseProbes
from coordinator.effects import FlowDriver, fan_outs
from coordinator.effects.evaluations import EvaluationBusy
from coordinator.effects.fan_outs import FanOuts
from coordinator.engine.new_documents import new_job
from coordinator.store.sqlite import SqliteStore
from shared.broker.memory import MemoryBroker
from shared.model.documents import Actor, Document, TaskDocument
from shared.model.language import JobDefinition
from shared.model.messages import JobChanged, MessageCodec
from shared.model.queues import JOBS_QUEUE
from tests.datastores import sqlite_file
from tests.settings import default_bounds
from tests.unit.engine.world import step


class Slow(SqliteStore):
    """A store that takes long for many documents at a time."""

    async def insert_many(self, documents: Sequence[Document]) -> int:
        await asyncio.sleep(60)
        return await super().insert_many(documents)


@pytest.mark.slow
async def test_one_users_fan_outs_keep_no_other_job_waiting(folder: Path) -> None:
    store, codec = Slow(sqlite_file(folder)), MessageCodec()
    broker = MemoryBroker(node_expiry=60.0)
    await store.start()
    await broker.start()
    driver = FlowDriver(store, broker, default_bounds(), codec)
    probes = PulseProbes(driver, broker, codec, "c")
    consumers = QueueConsumers(driver, broker, codec, probes)
    await driver.start()
    await consumers.start()

    async def submit(user: str, number: int, task: dict[str, Any]) -> str:
        definition = msgspec.convert({"name": "j", "tasks": [task]}, JobDefinition)
        by = Actor(id=user, username=user)
        job = new_job(definition, f"{user}{number:031}", store.now(), created_by=by)
        await store.insert(job)
        await broker.publish(JOBS_QUEUE, codec.encode(JobChanged(job_id=job.id)))
        return job.id

    try:
        for number in range(120):
            await submit("a", number, {"name": "e", "each": {"list": "1..2", "task": step("i")}})
        where = {"job_id": await submit("b", 0, step("one")), "state": "SCHEDULED"}
        async with asyncio.timeout(6):
            while True:
                if await store.find(TaskDocument, where):
                    break
                await asyncio.sleep(0.05)
    finally:
        await consumers.close()
        await driver._following.cancel()
        await driver.close()
        await broker.close()
        await store.close()


class Crowd:
    """Tasks that grow until they are told to stop."""

    def __init__(self, turns: FanOuts) -> None:
        self._turns = turns
        self.grown: list[str] = []
        self._over: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self._over[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._grow(name))
        await self.rest()

    async def _grow(self, name: str) -> None:
        try:
            await self._turns.turn(name[0])
            self.grown.append(name)
            await self._over[name].wait()
        finally:
            self._turns.over()

    async def go(self, name: str) -> None:
        self._over[name].set()
        await self.rest()

    async def rest(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    monkeypatch.setattr(fan_outs, "GROWING_AT_ONCE", 1)
    crowd = Crowd(FanOuts())
    yield crowd
    for task in crowd.tasks.values():
        task.cancel()


async def test_users_take_turns(crowd: Crowd) -> None:
    await crowd.come("a1", "a2", "a3", "b1")
    for name in ("a1", "a2", "b1", "a3"):
        assert crowd.grown[-1] == name
        await crowd.go(name)
    await crowd.come("c1")
    assert crowd.grown == ["a1", "a2", "b1", "a3", "c1"]


async def test_who_goes_while_they_wait_or_have_their_turn_keeps_nobody(crowd: Crowd) -> None:
    await crowd.come("a1", "a2", "a3", "a4")
    crowd.tasks["a2"].cancel()
    await crowd.go("a1")
    assert crowd.grown == ["a1", "a3"]
    await crowd.come("b1")
    crowd._over["a3"].set()
    await asyncio.sleep(0)  # the turn is given to somebody who has not heard of it
    await asyncio.sleep(0)
    crowd.tasks["a4"].cancel()
    await crowd.rest()
    assert "b1" in crowd.grown


async def test_handlers_put_off_what_too_many_wait_before(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_outs, "MOST_WAITING", 2)
    await crowd.come("a1")
    fan_outs.place_held.set(asyncio.get_running_loop().create_future())
    await crowd.come("a2", "a3", "a4")
    with pytest.raises(EvaluationBusy):
        crowd.tasks["a4"].result()
    fan_outs.place_held.set(None)
    await crowd.come("a5")
    assert not crowd.tasks["a5"].done()
