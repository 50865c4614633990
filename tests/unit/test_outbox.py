"""A broker that takes nothing keeps no handler from its end: what was to be sent is in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.effects import FlowDriver, outbox
from coordinator.store.sqlite import SqliteStore
from shared.broker.memory import MemoryBroker
from shared.model import language
from shared.model.documents import JobDocument, TaskDocument
from shared.model.messages import DeadNodes, MessageCodec
from shared.model.states import JobState, TaskKind, TaskState
from tests.datastores import sqlite_file
from tests.settings import default_bounds


class Silent(MemoryBroker):
    """A broker that never answers a publisher, as one whose memory is full."""

    asked = 0

    async def publish(self, *_: Any, **__: Any) -> None:
        self.asked += 1
        await asyncio.Event().wait()


@pytest.fixture
async def driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FlowDriver]:
    monkeypatch.setattr(outbox, "SENT_WITHIN", 0.05)
    store, broker = SqliteStore(sqlite_file(folder)), Silent(node_expiry=60.0)
    await store.start()
    await broker.start()
    made = FlowDriver(store, broker, default_bounds(), MessageCodec(None))
    await made.start()
    yield made
    await made.close()
    await broker.close()
    await store.close()


async def test_a_task_that_can_not_be_sent_stays_pending(driver: FlowDriver) -> None:
    job = JobDocument(id="job", name="j", state=JobState.RUNNING, root_id="job")
    task = TaskDocument(
        id="task",
        job_id="job",
        root_id="job",
        path="1",
        position=1,
        kind=TaskKind.CONTAINER,
        name="t",
        state=TaskState.PENDING,
        evaluated=language.TaskDefinition(name="t"),
    )
    await driver.store.insert(job)
    await driver.store.insert(task)
    async with asyncio.timeout(5):
        await driver.outbox.publish_tasks([task])
    stored = await driver.store.get(TaskDocument, "task")
    assert stored is not None
    assert stored.state == "PENDING"


async def test_a_node_that_can_not_be_told_is_told_by_the_next_beat(driver: FlowDriver) -> None:
    async with asyncio.timeout(5):
        await driver.outbox.send("node", DeadNodes(asked=[], nodes=[]))


async def test_very_many_messages_cost_no_more_time_than_one(
    driver: FlowDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = driver.outbox._broker
    assert isinstance(broker, Silent)
    async with asyncio.timeout(5):
        for _ in range(1_000):
            await driver.outbox.send("node", DeadNodes(asked=[], nodes=[]))
    assert broker.asked == 1
    monkeypatch.setattr(outbox, "SPARED_FOR", 0.0)
    await driver.outbox.send("other", DeadNodes(asked=[], nodes=[]))
    await driver.outbox.send("other", DeadNodes(asked=[], nodes=[]))
    assert broker.asked == 3, "it is tried again after a while, and other queues at once"
