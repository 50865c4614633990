"""What other programs put into a queue, or name a queue, never costs who consumes it the connection."""

from __future__ import annotations

import asyncio

import pytest
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

from shared.broker.deliveries import ORIGIN, REASON
from shared.broker.port import Delivery
from shared.broker.rabbitmq import RabbitMQBroker
from shared.model.queues import COMPLETED_QUEUE, DEAD_QUEUE, EVENTS
from tests.amqp_frames import NO_TEXT, PROPERTIES, headers, published, text_header
from tests.integration.rabbitmq.waiting import Inbox, within

_NONE = b"\0\0"


@pytest.mark.parametrize("properties", PROPERTIES.values(), ids=PROPERTIES)
async def test_a_workers_message_with_any_properties_can_be_buried(
    broker: RabbitMQBroker, properties: bytes
) -> None:
    slot = await broker.slot("work")
    await _send(broker, "", b"work", properties, b"poor")
    await broker.publish("work", b"good")
    poor = await within(slot.take())
    assert poor.body == b"poor"
    await poor.bury("nobody can handle it")
    good = await within(slot.take())
    assert (good.body, poor.lost) == (b"good", False)
    await good.ack()
    buried = await within((await broker.slot(DEAD_QUEUE)).take())
    assert buried.body == b"poor"
    assert (buried.headers[ORIGIN], buried.headers[REASON]) == ("work", "nobody can handle it")


@pytest.mark.parametrize("properties", PROPERTIES.values(), ids=PROPERTIES)
async def test_a_coordinators_message_with_any_properties_is_handled(
    broker: RabbitMQBroker, properties: bytes
) -> None:
    inbox = Inbox()
    await broker.subscribe(COMPLETED_QUEUE, inbox, prefetch=5)
    await _send(broker, "", COMPLETED_QUEUE.encode(), properties, b"poor")
    await broker.publish(COMPLETED_QUEUE, b"good")
    assert await inbox.bodies(2) == [b"poor", b"good"]


@pytest.mark.parametrize(
    "entries",
    [
        text_header("k", "\N{GRINNING FACE}" * 31_950),
        b"".join(text_header(chr(0x4E00 + number), "") for number in range(14_400)),
    ],
    ids=["wide", "many"],
)
async def test_a_message_whose_headers_fill_a_frame_can_be_buried(
    broker: RabbitMQBroker, entries: bytes
) -> None:
    """With the reason they would not fit one: RabbitMQ would end the connection, at each try."""
    slot = await broker.slot("work")
    await _send(broker, "", b"work", headers(entries), b"poor")
    poor = await within(slot.take())
    await poor.bury("x" * 5_000)
    buried = await within((await broker.slot(DEAD_QUEUE)).take())
    assert (buried.body, buried.headers[ORIGIN]) == (b"poor", "work")


async def test_an_event_with_a_routing_key_that_is_no_text_is_heard(broker: RabbitMQBroker) -> None:
    heard = Inbox()
    await broker.subscribe_events(heard)
    await _send(broker, EVENTS, NO_TEXT, _NONE, b"theirs")
    await broker.publish_event(b"ours")
    assert {*await heard.bodies(2)} == {b"theirs", b"ours"}


async def test_what_rabbitmq_says_may_end_within_a_character(broker: RabbitMQBroker) -> None:
    """It cuts what it says of a queue with a long name, at a byte."""
    held: asyncio.Queue[Delivery] = asyncio.Queue()

    async def hold(delivery: Delivery) -> None:
        held.put_nowait(delivery)
        await delivery.wait_lost()

    await broker.subscribe(COMPLETED_QUEUE, hold, prefetch=1)
    await broker.publish(COMPLETED_QUEUE, b"held")
    delivery = await within(held.get())
    session = await broker._consuming.session()
    for name in ("ß" * 120, "a" + "ß" * 120):
        assert await within(session.absent(name))
    assert not session.lost.is_set()
    assert not delivery.lost


async def _send(
    broker: RabbitMQBroker, exchange: str, key: bytes, properties: bytes, body: bytes
) -> None:
    """Publish a message as it is, and return once RabbitMQ has it."""

    async def write(channel: Channel) -> None:
        frames = published(channel.number, exchange, key, properties, body)
        await channel.write_queue.put(ChannelFrame(frames, should_close=False))
        await channel.basic_qos(prefetch_count=1)  # answered after what was sent before

    await (await broker._publishing.session()).ask(write)
