"""The pulse goes on quickly, whichever coordinator takes whose probes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.due.pulse_probes import PulseProbes
from coordinator.effects import FlowDriver
from coordinator.store.sqlite import SqliteStore
from shared.broker.memory import MemoryBroker
from shared.model.messages import MessageCodec, PulseProbe
from shared.model.queues import COMPLETED_QUEUE
from tests.datastores import sqlite_file
from tests.settings import default_bounds


class Bench:
    """Two coordinators' probes, and what they send."""

    def __init__(self, driver: FlowDriver, broker: MemoryBroker) -> None:
        codec = MessageCodec(None)
        self.broker = broker
        self.one = PulseProbes(driver, broker, codec, "one")
        self.two = PulseProbes(driver, broker, codec, "two")
        self._codec = codec

    async def next(self) -> PulseProbe:
        """Take a probe from the queue `completed`."""
        slot = await self.broker.slot(COMPLETED_QUEUE)
        async with asyncio.timeout(5):
            delivery = await slot.take()
        await delivery.ack()
        await slot.close()
        probe = self._codec.decode(delivery.body)
        assert isinstance(probe, PulseProbe)
        return probe

    async def waiting(self) -> int:
        """How many probes are in that queue."""
        queue = await self.broker.queue(COMPLETED_QUEUE)
        return 0 if queue is None else queue.size


@pytest.fixture
async def bench(folder: Path) -> AsyncIterator[Bench]:
    store = SqliteStore(sqlite_file(folder))
    broker = MemoryBroker(node_expiry=60.0)
    await store.start()
    await broker.start()
    made = Bench(FlowDriver(store, broker, default_bounds(), MessageCodec(None)), broker)
    yield made
    await made.one.close()
    await made.two.close()
    await broker.close()
    await store.close()


async def test_one_probe_a_queue_is_outstanding(bench: Bench) -> None:
    await bench.one.send()
    await bench.one.send()
    assert await bench.waiting() == 1


async def test_a_later_probe_that_is_taken_says_that_ours_was(bench: Bench) -> None:
    await bench.one.send()
    await bench.two.send()
    ours, theirs = await bench.next(), await bench.next()
    bench.two.taken(ours)
    bench.one.taken(theirs)
    await bench.one.send()
    assert (await bench.next()).sender == "one"


async def test_an_earlier_one_says_nothing_of_ours(bench: Bench) -> None:
    await bench.two.send()
    theirs = await bench.next()
    await bench.one.send()
    bench.one.taken(theirs)
    await bench.one.send()
    assert await bench.waiting() == 1
