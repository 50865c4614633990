"""A virtual host for each test, brokers that are closed after it, and a node that may be ill-used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from devservices.rabbitmq_node import Node
from shared.broker.rabbitmq import RabbitMQBroker
from tests.integration.rabbitmq.server import Server, settings
from tests.services.fixtures import Vhost
from tests.services.management import Management
from tests.settings import rabbitmq_broker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs the server."""
    for item in items:
        if "integration/rabbitmq" in item.path.as_posix():
            item.add_marker(pytest.mark.rabbitmq)


class Brokers:
    """Makes started brokers."""

    def __init__(self) -> None:
        self._made: list[RabbitMQBroker] = []

    def make(self, vhost: Vhost, **settings: object) -> RabbitMQBroker:
        broker = rabbitmq_broker(
            vhost.url,
            vhost.management_url,
            **settings,
        )
        self._made.append(broker)
        return broker

    async def start(self, vhost: Vhost, **settings: object) -> RabbitMQBroker:
        broker = self.make(vhost, **settings)
        await broker.start()
        return broker

    async def close(self) -> None:
        for broker in self._made:
            await broker.close()


@pytest.fixture
async def brokers(rabbitmq_vhost: Vhost) -> AsyncIterator[Brokers]:
    """To be asked for after any virtual host, which must outlive the connections."""
    made = Brokers()
    yield made
    await made.close()


@pytest.fixture
async def broker(brokers: Brokers, rabbitmq_vhost: Vhost) -> RabbitMQBroker:
    return await brokers.start(rabbitmq_vhost)


@pytest.fixture
def server(rabbitmq_vhost: Vhost) -> Server:
    """The server of everybody, seen from its management API."""
    return Server(rabbitmq_vhost)


@pytest.fixture(scope="session")
def own_node(rabbitmq_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that only these tests use: it is stopped, frozen, and short of memory."""
    node = Node(tmp_path_factory.mktemp("rabbitmq"), settings=settings())
    node.start()
    yield node
    node.stop()


@pytest.fixture
def own_vhost(own_node: Node) -> Iterator[Vhost]:
    name = f"test-{uuid4().hex}"
    Management(own_node.management_url).add_vhost(name)
    yield Vhost(name, f"{own_node.url}{name}", own_node.management_url)
    Management(own_node.management_url).delete_vhost(name)
