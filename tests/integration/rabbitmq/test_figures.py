"""Figures of queues, with the management API and without."""

from __future__ import annotations

import pytest

from shared.broker.port import QueueInfo
from shared.broker.rabbitmq import RabbitMQBroker
from shared.model.queues import ALWAYS_THERE
from tests.integration.rabbitmq.conftest import Brokers
from tests.integration.rabbitmq.server import Server
from tests.integration.rabbitmq.waiting import Inbox, eventually, within
from tests.services.fixtures import Vhost


@pytest.fixture(params=[None, "http://guest:guest@127.0.0.1:9"], ids=["none", "silent"])
async def unmanaged(
    brokers: Brokers, rabbitmq_vhost: Vhost, request: pytest.FixtureRequest
) -> RabbitMQBroker:
    vhost = Vhost(rabbitmq_vhost.name, rabbitmq_vhost.url, request.param)
    return await brokers.start(vhost, node_expiry=1.0)


async def test_without_the_management_api_what_we_have_met_is_asked_for(
    unmanaged: RabbitMQBroker,
) -> None:
    for _ in range(3):
        await unmanaged.publish("work", b"x")
    held = await within((await unmanaged.slot("work")).take())
    await eventually(unmanaged.queues, lambda seen: QueueInfo("work", 2, 1, 1) in seen)
    await held.ack()
    names = [info.name for info in await unmanaged.queues()]
    assert names == sorted({*ALWAYS_THERE, "work"})
    assert await unmanaged.delete_queue("work")
    assert [info.name for info in await unmanaged.queues() if info.name == "work"] != ["x"]


@pytest.mark.parametrize("name", ["", "漢" * 86, "x" * 300, "..", "\ud800", "a\0b"])
async def test_names_that_no_queue_has(broker: RabbitMQBroker, name: str) -> None:
    await broker.publish("declared last", b"x")
    assert await broker.queue(name) is None
    assert not await broker.delete_queue(name)
    assert await broker.queue("declared last") is not None


async def test_looking_keeps_no_dead_nodes_queue_alive(unmanaged: RabbitMQBroker) -> None:
    """RabbitMQ counts a passive declaration as a use."""
    inbox = Inbox()
    subscription = await unmanaged.subscribe("x-node", inbox, prefetch=1)
    await subscription.close()
    assert "x-node" not in {info.name for info in await unmanaged.queues()}


async def test_a_queue_that_another_connection_has_for_itself(
    broker: RabbitMQBroker, server: Server
) -> None:
    await broker.subscribe_events(Inbox())
    [name] = await eventually(server.event_queues, lambda seen: len(seen) == 1)
    found = await eventually(lambda: broker.queue(name), lambda seen: seen is not None)
    assert found is not None
    assert found.subscribers == 1
    await broker.ping()
