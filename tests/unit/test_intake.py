"""A coordinator hears its queues again, whatever went wrong meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.consumers import QueueConsumers, queue_consumers
from coordinator.due.pulse_probes import PulseProbes
from coordinator.effects import FlowDriver
from coordinator.store.sqlite import SqliteStore
from shared.broker.memory import MemoryBroker
from shared.errors import QueueMismatch, StoreUnavailable
from shared.model.documents import Document
from shared.model.messages import JobChanged, MessageCodec
from shared.model.queues import DEAD_QUEUE, JOBS_QUEUE
from tests.settings import default_bounds


class Refusing(MemoryBroker):
    """A broker that refuses some subscriptions."""

    refusals = 0

    async def subscribe(self, queue: str, *args: Any, **more: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise QueueMismatch(queue, "made by somebody else")
        return await super().subscribe(queue, *args, **more)


class Flaky(SqliteStore):
    """A store that is away for one question."""

    away = False

    async def get(self, kind: type[Document], id: str) -> Any:
        if self.away:
            self.away = False
            raise StoreUnavailable("away")
        return await super().get(kind, id)


@pytest.fixture
async def parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Flaky, Refusing]]:
    """A store and a broker, with a coordinator's intake between them."""
    monkeypatch.setattr(queue_consumers, "STORE_CHECK", 0.01)
    store, broker, codec = (
        Flaky(tmp_path / "haulier.db"),
        Refusing(node_expiry=60.0),
        MessageCodec(None),
    )
    await store.start()
    await broker.start()
    driver = FlowDriver(store, broker, default_bounds(), codec)
    probes = PulseProbes(driver, broker, codec, "c")
    taking = QueueConsumers(driver, broker, codec, probes)
    await driver.start()
    await taking.start()
    yield store, broker
    await taking.close()
    await probes.close()
    await driver.close()
    await broker.close()
    await store.close()


@pytest.mark.parametrize("refusals", [0, 1, 9])
async def test_after_an_outage_every_queue_is_heard_again(
    parts: tuple[Flaky, Refusing], refusals: int
) -> None:
    store, broker = parts
    store.away, broker.refusals = True, refusals
    await broker.publish(JOBS_QUEUE, MessageCodec(None).encode(JobChanged(job_id="none")))
    dead = await broker.slot(DEAD_QUEUE)
    for queue in (JOBS_QUEUE, "logs"):
        await broker.publish(queue, b"nobody can read this")
        async with asyncio.timeout(5):
            await (await dead.take()).ack()
    assert (store.away, broker.refusals) == (False, 0)
