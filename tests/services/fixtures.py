"""Fixtures: one server of each kind for a whole run, a fresh corner of it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import docker
import pymongo
import pytest

from devservices import mongodb, mongodb_node, podman, rabbitmq
from devservices import registry as registry_service
from devservices.mongodb_node import Node as MongoNode
from devservices.nodes import node_folder
from devservices.rabbitmq_node import Node as RabbitNode
from tests.services.management import Management
from tests.services.need import need


@dataclass(frozen=True)
class Vhost:
    """A virtual host that one test has for itself."""

    name: str
    url: str
    """Its AMQP address."""
    management_url: str
    """The server's management API, with user and password; the same for all virtual hosts."""


@dataclass(frozen=True)
class Database:
    """A database that one test has for itself."""

    name: str
    url: str
    """The replica set's address; it names no database."""


@dataclass(frozen=True)
class Registry:
    """A private image registry, plain HTTP on the loopback."""

    address: str
    """`host:port`, the first part of its images' names."""
    username: str
    password: str


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """The AMQP address of a real RabbitMQ; its default virtual host is everybody's."""
    return need("rabbitmq")[rabbitmq.URL]


@pytest.fixture(scope="session")
def rabbitmq_management_url() -> str:
    """The management API of that RabbitMQ, with user and password."""
    return need("rabbitmq")[rabbitmq.MANAGEMENT_URL]


@pytest.fixture
def rabbitmq_vhost(rabbitmq_url: str, rabbitmq_management_url: str) -> Iterator[Vhost]:
    """A fresh virtual host, gone after the test with all that is in it."""
    name = f"test-{uuid4().hex}"
    management = Management(rabbitmq_management_url)
    management.add_vhost(name)
    yield Vhost(name, f"{rabbitmq_url.rstrip('/')}/{name}", rabbitmq_management_url)
    management.delete_vhost(name)


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitNode]:
    """A started RabbitMQ node for one test alone: to stop, kill, freeze and start again."""
    need("rabbitmq")
    rabbitmq.require()
    with node_folder("rabbitmq") as folder:
        node = RabbitNode(folder)
        node.start()
        yield node


@pytest.fixture(scope="session")
def mongodb_url() -> str:
    """The address of a real MongoDB replica set (one node), that names no database."""
    return need("mongodb")[mongodb.URL]


@contextmanager
def database_at(url: str) -> Iterator[Database]:
    """A fresh database, dropped in the end."""
    name = f"test_{uuid4().hex}"
    yield Database(name, url)
    with pymongo.MongoClient[dict[str, object]](url) as client:
        client.drop_database(name)


@pytest.fixture
def mongodb_database(mongodb_url: str) -> Iterator[Database]:
    """A fresh database, dropped after the test."""
    with database_at(mongodb_url) as database:
        yield database


@pytest.fixture
def own_mongodb() -> Iterator[MongoNode]:
    """A started replica set of one node for one test alone: to stop, kill and start again.

    Its address is `mongodb_node.url_of([node])`.
    """
    need("mongodb")
    with node_folder("mongodb") as folder:
        node = MongoNode(folder)
        node.start()
        mongodb_node.initiate([node])
        yield node


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The address of a real Docker engine that has the images of `devservices.images.USUAL`."""
    return need("docker")["DOCKER_HOST"]


@pytest.fixture(scope="session")
def docker_engine(docker_host: str) -> Iterator[docker.DockerClient]:
    """A client of that engine."""
    client = docker.DockerClient(base_url=docker_host)
    yield client
    client.close()


@pytest.fixture(scope="session")
def podman_host() -> str:
    """The address of Podman's Docker-compatible socket."""
    return need("podman")[podman.HOST]


@pytest.fixture(scope="session")
def registry() -> Registry:
    """A real private registry that refuses whoever has no password."""
    found = need("registry")
    return Registry(
        found[registry_service.ADDRESS],
        found[registry_service.USERNAME],
        found[registry_service.PASSWORD],
    )
