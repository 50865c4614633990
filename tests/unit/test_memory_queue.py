"""A queue in memory keeps its order, whoever gives back what he had of it."""

from __future__ import annotations

import tracemalloc

import pytest

from shared.broker import spill
from shared.broker.memory import MemoryBroker
from shared.broker.port import Delivery
from shared.broker.spill import Spill


async def test_what_a_consumer_had_on_loan_lies_in_the_queue_as_it_did_before() -> None:
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    bodies = [str(number).encode() for number in range(20)]
    for body in bodies:
        await broker.publish("jobs", body)

    async def keep(_: Delivery) -> None:
        return

    first = await broker.subscribe("jobs", keep, prefetch=len(bodies))
    await first.abandon()

    slot = await broker.slot("jobs")
    seen = []
    for _ in bodies:
        delivery = await slot.take()
        seen.append(delivery.body)
        await delivery.ack()
    assert seen == bodies
    await broker.close()


async def test_what_waits_beyond_a_bound_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill.Spill.__init__, "__defaults__", (1_000_000,))
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    tracemalloc.start()
    for number in range(100):
        await broker.publish("default", bytes([number]) * 900_000, priority=number % 2)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3_000_000
    slot = await broker.slot("default")
    await (await slot.take()).requeue()
    seen: list[int] = []
    for _ in range(100):
        delivery = await slot.take()
        seen.append(delivery.body[0])
        assert len(delivery.body) == 900_000
        await delivery.ack()
    assert seen == [*range(1, 100, 2), *range(0, 100, 2)]
    await broker.close()


def test_room_that_was_given_back_is_used_again() -> None:
    made = Spill(in_memory=10)
    first, second = made.keep(b"x" * 10), made.keep(b"y" * 10)
    assert (first.read(), second.read()) == (b"x" * 10, b"y" * 10)
    assert made._file is not None
    del first, second
    assert made._file.execute("SELECT count(*) FROM bodies").fetchone() == (0,)
    assert made._left == 10
    made.close()
    made.over(None, 1)
