"""A broker that takes nothing keeps no handler from its end: what was to be sent is in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.effects import Conductor, outbox
from coordinator.engine.flow import Bounds
from coordinator.store.sqlite import SqliteStore
from shared.broker.memory import MemoryBroker
from shared.model import language
from shared.model.documents import Job, Task
from shared.model.messages import DeadNodes, MessageCodec


class Silent(MemoryBroker):
    """A broker that never answers a publisher, as one whose memory is full."""

    async def publish(self, *_: Any, **__: Any) -> None:
        await asyncio.Event().wait()


@pytest.fixture
async def conductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Conductor]:
    monkeypatch.setattr(outbox, "SENT_WITHIN", 0.05)
    store, broker = SqliteStore(tmp_path / "haulier.db"), Silent(node_expiry=60.0)
    await store.start()
    await broker.start()
    made = Conductor(store, broker, Bounds(), MessageCodec(None))
    await made.start()
    yield made
    await made.close()
    await broker.close()
    await store.close()


async def test_a_task_that_can_not_be_sent_stays_pending(conductor: Conductor) -> None:
    job = Job(id="job", name="j", state="RUNNING", root_id="job")
    task = Task(
        id="task",
        job_id="job",
        root_id="job",
        path="1",
        position=1,
        kind="container",
        name="t",
        state="PENDING",
        evaluated=language.Task(name="t"),
    )
    await conductor.store.insert(job)
    await conductor.store.insert(task)
    async with asyncio.timeout(5):
        await conductor.outbox.publish_tasks([task])
    stored = await conductor.store.get(Task, "task")
    assert stored is not None
    assert stored.state == "PENDING"


async def test_a_node_that_can_not_be_told_is_told_by_the_next_beat(conductor: Conductor) -> None:
    async with asyncio.timeout(5):
        await conductor.outbox.send("node", DeadNodes(asked=[], nodes=[]))
