"""Figures of queues, with the management API and without."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import test_utils, web
from yarl import URL

from shared.broker.port import QueueInfo
from shared.broker.rabbitmq import RabbitMQBroker
from shared.broker.rabbitmq.declarations import Interrupted
from shared.broker.rabbitmq.queue_stats import Management, management_of
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


class Refusals:
    """A server that lets nobody in, and counts who asks."""

    def __init__(self) -> None:
        self.count = 0
        self.url = ""

    async def refuse(self, _: web.BaseRequest) -> web.Response:
        self.count += 1
        return web.Response(status=401)


@pytest.fixture
async def refusals() -> AsyncIterator[Refusals]:
    made = Refusals()
    async with test_utils.RawTestServer(made.refuse) as server:
        made.url = str(server.make_url("/"))
        yield made


async def test_without_the_management_api_what_is_named_is_asked_for(
    unmanaged: RabbitMQBroker, broker: RabbitMQBroker
) -> None:
    for _ in range(3):
        await broker.publish("work", b"x")
    await within((await broker.slot("work")).take())
    found = await unmanaged.queues(["work", "never made", "\ud800"])
    assert QueueInfo("work", 2, 1) in found, "what is on loan is not known"
    assert [info.name for info in found] == sorted({*ALWAYS_THERE, "work"})
    assert await unmanaged.queue("work") == QueueInfo("work", 2, 1)


@pytest.mark.parametrize(
    ("broker", "management"),
    [
        ("amqp://me:secret@mq.example/v", "http://mq.example:15672"),
        ("amqp://me:secret@mq.example:5672/v", "http://mq.example:15672"),
        ("amqps://me:secret@mq.example/v", "https://mq.example:15671"),
    ],
)
def test_the_management_api_is_looked_for_where_it_is_by_default(
    broker: str, management: str
) -> None:
    found = management_of(URL(broker), None)
    assert found is not None
    assert str(found.url) == management


def test_behind_a_port_of_its_own_a_broker_has_no_default() -> None:
    assert management_of(URL("amqp://me:secret@mq.example:5673/v"), None) is None


async def test_a_management_api_that_nobody_named_and_that_is_silent_is_left_alone(
    refusals: Refusals,
) -> None:
    looked_for = Management(refusals.url, "/", silence=60.0)
    for _ in range(3):
        with pytest.raises(Interrupted):
            await looked_for.queues()
    assert refusals.count == 1
    await looked_for.close()


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
