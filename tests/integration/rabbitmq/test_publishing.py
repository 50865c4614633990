"""Publishing: confirmed, returned, interrupted, blocked."""

from __future__ import annotations

import asyncio
import time

import pytest

from devservices.rabbitmq_node import Node
from shared.broker.rabbitmq import RabbitMQBroker
from shared.errors import BrokerMisconfigured, BrokerUnavailable
from shared.model.queues import CLAIMS_QUEUE, COMPLETED_QUEUE, JOBS_QUEUE, LOGS_QUEUE
from tests.integration.rabbitmq.conftest import Brokers
from tests.integration.rabbitmq.server import Server, short_of_memory
from tests.integration.rabbitmq.waiting import Inbox, eventually, within
from tests.services.fixtures import Vhost


async def test_a_returned_message_has_its_queue_declared_and_goes_again(
    broker: RabbitMQBroker, server: Server
) -> None:
    await broker.publish("work", b"one")
    await server.delete_queue("work")
    await broker.publish("work", b"two", priority=7)
    delivery = await within((await broker.slot("work")).take())
    assert (delivery.body, delivery.priority) == (b"two", 7)


async def test_a_transient_message_to_nowhere_is_nobodys_trouble(
    broker: RabbitMQBroker, server: Server
) -> None:
    await broker.publish(CLAIMS_QUEUE, b"one")
    await server.delete_queue(CLAIMS_QUEUE)
    await broker.publish(CLAIMS_QUEUE, b"nowhere")
    inbox = Inbox()
    await broker.subscribe(CLAIMS_QUEUE, inbox, prefetch=1)
    await broker.publish(CLAIMS_QUEUE, b"two")
    assert await inbox.bodies(1) == [b"two"]


async def test_how_messages_rest(broker: RabbitMQBroker, server: Server) -> None:
    """Durable ones persistent, transient ones not: by what RabbitMQ itself says."""
    for queue in (JOBS_QUEUE, "work", CLAIMS_QUEUE):
        await broker.publish(queue, b"x")
    for queue, persistent in ((JOBS_QUEUE, 1), ("work", 1), (CLAIMS_QUEUE, 0)):
        seen = await eventually(
            lambda name=queue: server.queue(name),  # type: ignore[misc]  # bound at once
            lambda found, persistent=persistent: (  # type: ignore[misc]
                found.get("messages_ready") == 1 and found.get("messages_persistent") == persistent
            ),
        )
        assert seen["durable"] is True


async def test_publishes_go_on_through_killed_connections(
    broker: RabbitMQBroker, server: Server
) -> None:
    """None is lost; some may come twice."""
    wanted = {str(number).encode() for number in range(3000)}
    inbox = Inbox()
    await broker.subscribe(JOBS_QUEUE, inbox, prefetch=100)

    async def publish(body: bytes) -> None:
        await broker.publish(JOBS_QUEUE, body)

    async def all_of_them() -> None:
        for start in range(0, 3000, 100):
            bodies = [str(number).encode() for number in range(start, start + 100)]
            await asyncio.gather(*(publish(body) for body in bodies))

    publishing = asyncio.create_task(all_of_them())
    await server.kill_connections()
    await within(publishing, 60)
    got: set[bytes] = set()
    while got < wanted:
        got |= set(await inbox.bodies(1))
    assert got == wanted


async def test_each_purpose_has_a_connection_of_its_own(
    brokers: Brokers, rabbitmq_vhost: Vhost, server: Server
) -> None:
    broker = await brokers.start(rabbitmq_vhost, name="node-1")
    inbox = Inbox()
    await broker.subscribe(LOGS_QUEUE, inbox, prefetch=1)
    await broker.publish(LOGS_QUEUE, b"x")
    assert await inbox.bodies(1) == [b"x"]
    seen = await eventually(server.connections, lambda found: len(found) == 4)
    names = {entry["client_properties"]["connection_name"] for entry in seen}
    assert names == {
        f"node-1 ({purpose})"
        for purpose in ("publishing", "consuming", "publishing logs", "consuming logs")
    }
    assert {entry["timeout"] for entry in seen} == {5}


@pytest.mark.slow
async def test_blocked_by_an_alarm(own_vhost: Vhost, brokers: Brokers, own_node: Node) -> None:
    broker = await brokers.start(own_vhost)
    await broker.publish(COMPLETED_QUEUE, b"before")
    slot = await broker.slot(COMPLETED_QUEUE)
    async with short_of_memory(own_node):
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=COMPLETED_QUEUE):
            await within(broker.publish(COMPLETED_QUEUE, b"blocked"), 20)
        assert 9 < time.monotonic() - began < 15
        with pytest.raises(BrokerUnavailable, match=CLAIMS_QUEUE):
            await within(broker.publish(CLAIMS_QUEUE, b"blocked too"), 20)
        await broker.publish_event(b"never waits")
        await within(broker.ping())
        delivery = await within(slot.take())
        assert delivery.body == b"before"
        await delivery.ack()
        await eventually(
            lambda: broker.queue(COMPLETED_QUEUE),
            lambda seen: seen is not None and seen.unacked == 0,
        )
    await broker.publish(COMPLETED_QUEUE, b"after")
    bodies = []
    while b"after" not in bodies:
        delivery = await within(slot.take())
        bodies.append(delivery.body)
        await delivery.ack()
    await slot.close()


@pytest.mark.parametrize("size", [16 * 1024 * 1024])
async def test_what_would_cost_others_their_channel_is_refused_here(
    broker: RabbitMQBroker, size: int
) -> None:
    with pytest.raises(ValueError, match="bytes"):
        await broker.publish(JOBS_QUEUE, b"x" * size)
    with pytest.raises(ValueError, match="headers"):
        await broker.publish(JOBS_QUEUE, b"x", headers={"big": "x" * 70_000})
    with pytest.raises(BrokerMisconfigured, match="258 bytes"):
        await broker.publish("漢" * 86, b"x")
    with pytest.raises(BrokerMisconfigured, match="Unicode"):
        await broker.publish("\ud800", b"x")
    with pytest.raises(BrokerMisconfigured, match="without a name"):
        await broker.publish("", b"x")
    with pytest.raises(BrokerMisconfigured, match=r"amq\.mine"):
        await broker.publish("amq.mine", b"x")
