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
from shared.supervision import Backoff
from tests.datastores import sqlite_file
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
    """A store that is away for one question, or refuses all work and answers pings."""

    away = False
    refuses = False
    refused = 0

    async def get(self, kind: type[Document], id: str) -> Any:
        if self.away or self.refuses:
            self.away = False
            self.refused += 1
            raise StoreUnavailable("away")
        return await super().get(kind, id)


@pytest.fixture
async def delays(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[float]:
    """The delays that the intake was to wait; it waits a moment instead."""
    waited: asyncio.Queue[float] = asyncio.Queue()

    class Noted(Backoff):
        def next(self) -> float:
            waited.put_nowait(super().next())
            return 0.001

    monkeypatch.setattr(queue_consumers, "Backoff", Noted)
    return waited


@pytest.fixture
async def parts(
    folder: Path, delays: asyncio.Queue[float]
) -> AsyncIterator[tuple[Flaky, Refusing]]:
    """A store and a broker, with a coordinator's intake between them, whose delays are noted."""
    del delays
    store, broker, codec = (
        Flaky(sqlite_file(folder)),
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


async def test_a_store_that_answers_pings_and_refuses_work_is_tried_less_and_less_often(
    parts: tuple[Flaky, Refusing], delays: asyncio.Queue[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, broker = parts
    store.refuses = True
    await broker.publish(JOBS_QUEUE, MessageCodec(None).encode(JobChanged(job_id="none")))
    async with asyncio.timeout(10):
        waited = [await delays.get() for _ in range(9)]
    assert store.refused >= 8
    assert waited[0] < 0.3
    assert waited[5:] == pytest.approx([6.4, 10, 10, 10], abs=2)
    monkeypatch.setattr(queue_consumers, "WENT_WELL", 0.0)
    async with asyncio.timeout(10):
        while await delays.get() > 0.3:
            assert store.refuses


async def test_while_the_store_refuses_its_ping_the_consumers_stay_closed(
    parts: tuple[Flaky, Refusing], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, broker = parts
    pings = asyncio.Semaphore(0)

    async def refused() -> None:
        pings.release()
        raise StoreUnavailable("it is read-only")

    store.refuses = True
    with monkeypatch.context() as patched:
        patched.setattr(store, "ping", refused)
        await broker.publish(JOBS_QUEUE, MessageCodec(None).encode(JobChanged(job_id="none")))
        async with asyncio.timeout(10):
            await pings.acquire()
            refused_before = store.refused
            for _ in range(5):
                await pings.acquire()
        assert store.refused == refused_before
    store.refuses = False
    await broker.publish(JOBS_QUEUE, b"nobody can read this")
    dead = await broker.slot(DEAD_QUEUE)
    async with asyncio.timeout(10):
        await (await dead.take()).ack()
