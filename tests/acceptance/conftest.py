"""Fixtures: a standalone process, a cluster on real services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from devservices import mongodb_node
from devservices.mongodb_node import Node as MongoNode
from devservices.rabbitmq_node import Node as RabbitNode
from tests.acceptance.browser import Contexts, chromium
from tests.acceptance.processes import SHELL, Cluster, Standalone
from tests.services.fixtures import Database, Vhost

QUICK = {
    "HAULIER_ENGINE_BEAT": "1s",
    "HAULIER_ENGINE_LEASE": "17s",
    "HAULIER_ENGINE_SWEEP": "1s",
    "HAULIER_ENGINE_RECONNECT_CAP": "2s",
}
"""The shortest times that fit together: a lease lasts three of AMQP's heartbeats and two beats."""


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[Callable[..., Standalone]]:
    """Makes and starts standalone processes, of the shell runtime where nothing else is said."""
    made: list[Standalone] = []

    def make(*, docker: bool = False, **settings: str) -> Standalone:
        process = Standalone(
            tmp_path / f"standalone-{len(made)}", **({} if docker else SHELL), **settings
        )
        made.append(process)
        process.start()
        return process

    yield make
    for process in made:
        process.stop()


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """One standalone process of the shell runtime that many tests share: a queue `serial` has one slot."""
    queues = {"HAULIER_WORKER_QUEUES_SERIAL": "1", "HAULIER_WORKER_QUEUES_VIDEO": "2"}
    process = Standalone(tmp_path_factory.mktemp("shell"), 8, **SHELL, **queues)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def cluster_settings(rabbitmq_vhost: Vhost, mongodb_database: Database) -> dict[str, str]:
    """The settings by which coordinators and workers of one test meet."""
    return {
        "HAULIER_BROKER_TYPE": "rabbitmq",
        "HAULIER_BROKER_RABBITMQ_URL": rabbitmq_vhost.url,
        "HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL": rabbitmq_vhost.management_url,
        "HAULIER_DATASTORE_TYPE": "mongodb",
        "HAULIER_DATASTORE_MONGODB_URL": mongodb_database.url,
        "HAULIER_DATASTORE_MONGODB_DATABASE": mongodb_database.name,
    }


@pytest.fixture
def cluster(tmp_path: Path, cluster_settings: dict[str, str]) -> Iterator[Cluster]:
    """A cluster with nothing in it yet."""
    made = Cluster(tmp_path, cluster_settings)
    yield made
    made.stop()


@pytest.fixture
def quick(tmp_path: Path, cluster_settings: dict[str, str]) -> Iterator[Cluster]:
    """A cluster with short times, and nothing in it yet."""
    made = Cluster(tmp_path, {**cluster_settings, **QUICK})
    yield made
    made.stop()


@pytest.fixture
def own_broker(cluster: Cluster, own_rabbitmq: RabbitNode) -> Iterator[RabbitNode]:
    """A RabbitMQ for this cluster alone, there until the cluster has stopped."""
    cluster.settings["HAULIER_BROKER_RABBITMQ_URL"] = own_rabbitmq.url
    cluster.settings["HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL"] = own_rabbitmq.management_url
    yield own_rabbitmq
    cluster.stop()


@pytest.fixture
def own_store(cluster: Cluster, own_mongodb: MongoNode) -> Iterator[MongoNode]:
    """A MongoDB for this cluster alone, there until the cluster has stopped."""
    cluster.settings["HAULIER_DATASTORE_MONGODB_URL"] = mongodb_node.url_of([own_mongodb])
    yield own_mongodb
    cluster.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium, for the tests of one file: while it is there, no other event loop can run."""
    with chromium() as found:
        yield found


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Contexts]:
    """Makes contexts of the browser: nothing may go wrong in any."""
    made = Contexts(browser)
    yield made
    assert made.close() == []


@pytest.fixture
def context(contexts: Contexts, shell: Standalone) -> BrowserContext:
    """A context for the page of the process that many tests share."""
    return contexts.open(shell.url)


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab of the browser."""
    return context.new_page()
