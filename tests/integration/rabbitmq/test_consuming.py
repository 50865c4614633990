"""Consumers through what happens to queues, channels and connections."""

from __future__ import annotations

import asyncio

import pytest

from devservices.rabbitmq_node import Node
from shared.broker.port import Delivery
from shared.broker.rabbitmq import RabbitMQBroker
from shared.broker.rabbitmq.consumers import RabbitSlot
from shared.model.queues import COMPLETED_QUEUE, JOBS_QUEUE, LOGS_QUEUE
from tests.integration.rabbitmq.conftest import Brokers
from tests.integration.rabbitmq.server import CONSUMER_TIMEOUT, Server, look_often
from tests.integration.rabbitmq.waiting import Inbox, eventually, within
from tests.services.fixtures import Vhost


async def test_a_queue_deleted_under_its_consumers(broker: RabbitMQBroker, server: Server) -> None:
    """The server's Basic.Cancel ends a consumer silently."""
    inbox, events = Inbox(), Inbox()
    await broker.subscribe(JOBS_QUEUE, inbox, prefetch=5)
    await broker.subscribe_events(events)
    slot = await broker.slot("work")
    waiting = asyncio.create_task(slot.take())
    for queue in (JOBS_QUEUE, "work"):
        await _has_consumers(broker, queue, 1)
        await server.delete_queue(queue)
    [events_queue] = await eventually(server.event_queues, lambda seen: len(seen) == 1)
    session = await broker._consuming.session()
    await session.ask(lambda channel: channel.queue_delete(events_queue))
    for queue in (JOBS_QUEUE, "work"):
        await _has_consumers(broker, queue, 1)
        await broker.publish(queue, b"after")
    assert await inbox.bodies(1) == [b"after"]
    assert (await within(waiting)).body == b"after"
    await _hears(broker, events)


async def test_what_is_on_loan_outlives_its_deleted_queue(
    broker: RabbitMQBroker, server: Server
) -> None:
    await broker.publish("work", b"held")
    slot = await broker.slot("work")
    held = await within(slot.take())
    await server.delete_queue("work")
    taking = asyncio.create_task(slot.take())
    await _has_consumers(broker, "work", 1)
    assert not held.lost
    await held.ack()
    await broker.publish("work", b"next")
    assert (await within(taking)).body == b"next"


async def test_a_channel_error_costs_its_own_slot_only(broker: RabbitMQBroker) -> None:
    for body in (b"one", b"two"):
        await broker.publish("work", body)
    first, second = await broker.slot("work"), await broker.slot("work")
    lost, kept = await within(first.take()), await within(second.take())
    await _break_channel(first)
    await within(lost.wait_lost())
    assert not kept.lost
    await lost.ack()
    again = await within(first.take())
    assert again.body == lost.body
    await again.ack()
    await kept.ack()
    await eventually(
        lambda: broker.queue("work"), lambda seen: seen is not None and seen.unacked == 0
    )


async def test_a_slot_whose_channel_was_lost_consumes_only_at_its_next_take(
    broker: RabbitMQBroker,
) -> None:
    await broker.publish("work", b"runs")
    slot, other = await broker.slot("work"), await broker.slot("work")
    lost = await within(slot.take())
    await _break_channel(slot)
    await within(lost.wait_lost())
    await within((await within(other.take())).ack())
    await broker.publish("work", b"next")
    await within((await within(other.take())).ack())
    await _has_consumers(broker, "work", 1)


@pytest.mark.parametrize("queue", [COMPLETED_QUEUE, LOGS_QUEUE])
async def test_killed_connections_come_back_with_their_consumers(
    broker: RabbitMQBroker, server: Server, queue: str
) -> None:
    connected: list[bool] = []
    broker.on_connected(connected.append)
    inbox, events, held = Inbox(), Inbox(), Inbox(ack=False)
    await broker.subscribe(queue, inbox, prefetch=5)
    await broker.subscribe_events(events)
    await broker.subscribe(JOBS_QUEUE, held, prefetch=1)
    await broker.publish(JOBS_QUEUE, b"held")
    await broker.publish(queue, b"before")
    assert await inbox.bodies(1) == [b"before"]
    on_loan = await held.next()
    await server.kill_connections(2 if queue == COMPLETED_QUEUE else 4)
    await within(on_loan.wait_lost())
    assert (await held.next()).body == b"held"
    await broker.publish(queue, b"after")
    assert b"after" in await inbox.bodies(1)
    await _hears(broker, events)
    assert connected == [False]


async def test_reconnecting_leaves_nothing_behind(broker: RabbitMQBroker, server: Server) -> None:
    inbox = Inbox()
    await broker.subscribe(JOBS_QUEUE, inbox, prefetch=5)
    slot = await broker.slot("work")
    waiting = asyncio.create_task(slot.take())

    async def settled() -> tuple[int, int]:
        return len(await server.connections()), len(await server.channels())

    async def running() -> int:
        return len(asyncio.all_tasks())

    async def used() -> tuple[int, int]:
        await broker.publish(JOBS_QUEUE, b"x")
        assert await inbox.bodies(1) == [b"x"]
        await _has_consumers(broker, "work", 1)
        await broker.ping()
        return await settled()

    # Publishing: declarations, confirms. Consuming: those, figures, pings, a subscription, a slot.
    usual = (2, 2 + 5)
    await eventually(used, lambda seen: seen == usual)
    tasks = len(asyncio.all_tasks())
    for _ in range(3):
        await server.kill_connections()
        await used()
    await eventually(used, lambda seen: seen == usual)
    await eventually(running, lambda count: count <= tasks)
    waiting.cancel()


@pytest.mark.slow
async def test_the_acknowledgement_timeout_costs_its_own_slot_only(
    own_vhost: Vhost, brokers: Brokers, own_node: Node
) -> None:
    await look_often(own_node)
    broker = await brokers.start(own_vhost)
    await broker.publish("work", b"long")
    slot, other = await broker.slot("work"), await broker.slot("work")
    waiting = asyncio.create_task(other.take())
    await _has_consumers(broker, "work", 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    held = await _taken_by(slot, other)
    await within(held.wait_lost(), CONSUMER_TIMEOUT * 10)
    again = await within(other.take())
    assert again.body == b"long"
    await again.ack()
    await broker.publish("work", b"short")
    taken = await within(slot.take())
    await taken.ack()
    assert taken.body == b"short"


async def _taken_by(slot: RabbitSlot, other: RabbitSlot) -> Delivery:
    """Have `slot` hold what is in the queue, whichever got it first."""
    await other.pause()
    return await within(slot.take())


async def _break_channel(slot: RabbitSlot) -> None:
    """Acknowledge what was never delivered: RabbitMQ closes the channel."""
    assert slot._tap is not None
    await slot._tap._channel.basic_ack(4711)


async def _has_consumers(broker: RabbitMQBroker, queue: str, count: int) -> None:
    await eventually(
        lambda: broker.queue(queue), lambda seen: seen is not None and seen.subscribers == count
    )


async def _hears(broker: RabbitMQBroker, events: Inbox) -> None:
    async def said() -> int:
        await broker.publish_event(b"heard")
        return events.deliveries.qsize()

    await eventually(said, lambda heard: heard > 0)
