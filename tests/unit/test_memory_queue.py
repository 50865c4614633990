"""A queue in memory keeps its order, whoever gives back what he had of it."""

from __future__ import annotations

from shared.broker.memory import MemoryBroker
from shared.broker.port import Delivery


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
