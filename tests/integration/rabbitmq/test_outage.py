"""The whole broker stops, freezes, and comes back; and so do its peers."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import pytest

from devservices.rabbitmq_node import Node
from shared.errors import BrokerUnavailable
from shared.model.queues import COMPLETED_QUEUE, JOBS_QUEUE
from tests.integration.rabbitmq.conftest import Brokers
from tests.integration.rabbitmq.waiting import Inbox, eventually, within
from tests.services.fixtures import Vhost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "crash"])
async def test_the_broker_goes_and_comes_back(
    own_vhost: Vhost, brokers: Brokers, own_node: Node, crash: bool
) -> None:
    broker = await brokers.start(own_vhost)
    connected: list[bool] = []
    broker.on_connected(connected.append)
    inbox, events = Inbox(), Inbox()
    await broker.subscribe(JOBS_QUEUE, inbox, prefetch=5)
    await broker.subscribe_events(events)
    for body in (b"held", b"rests"):
        await broker.publish("work", body)
    slot = await broker.slot("work")
    held = await within(slot.take())
    await asyncio.to_thread(own_node.settle)
    await asyncio.to_thread(own_node.kill if crash else own_node.stop)
    await within(held.wait_lost())
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=COMPLETED_QUEUE):
        await broker.publish(COMPLETED_QUEUE, b"away")
    assert time.monotonic() - began < 15
    for call in (broker.ping, broker.queues):
        with pytest.raises(BrokerUnavailable):
            await within(call(), 10)
    await broker.publish_event(b"nobody hears")
    await asyncio.to_thread(own_node.start)
    await broker.publish(JOBS_QUEUE, b"after")
    assert await inbox.bodies(1) == [b"after"]
    bodies = []
    for _ in range(2):
        delivery = await within(slot.take(), 60)
        bodies.append(delivery.body)
        await delivery.ack()
    assert sorted(bodies) == [b"held", b"rests"]
    assert connected == [False]

    async def heard() -> int:
        await broker.publish_event(b"x")
        return events.deliveries.qsize()

    await eventually(heard, lambda count: count > 0)


async def test_a_frozen_broker_is_noticed(
    own_vhost: Vhost, brokers: Brokers, own_node: Node
) -> None:
    broker = await brokers.start(own_vhost)
    await broker.publish(JOBS_QUEUE, b"held")
    slot = await broker.slot(JOBS_QUEUE)
    held = await within(slot.take())
    own_node.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            await broker.ping()
        assert time.monotonic() - began < 3
        with pytest.raises(BrokerUnavailable):
            await broker.publish(JOBS_QUEUE, b"x")
        await within(held.wait_lost(), 30)
    finally:
        own_node.thaw()
    again = await within(slot.take(), 60)
    assert again.body in (b"held", b"x")


TAKE_AND_SAY = """
import asyncio, sys
from shared.telemetry import configure_logging
from tests.settings import rabbitmq_broker

configure_logging("error", "json")

async def main():
    broker = rabbitmq_broker(sys.argv[1])
    await broker.start()
    slot = await broker.slot("work")
    delivery = await slot.take()
    print("taken", flush=True)
    await delivery.wait_lost()

asyncio.run(main())
"""


async def test_a_frozen_peers_delivery_comes_back_in_15_seconds(
    brokers: Brokers, rabbitmq_vhost: Vhost
) -> None:
    broker = await brokers.start(rabbitmq_vhost)
    await broker.publish("work", b"x")
    peer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TAKE_AND_SAY, rabbitmq_vhost.url, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert peer.stdout is not None
        assert await within(peer.stdout.readline()) == b"taken\n"
        peer.send_signal(signal.SIGSTOP)
        slot = await broker.slot("work")
        assert (await within(slot.take(), 17)).body == b"x"
    finally:
        peer.kill()
        await peer.wait()
