"""A whole plant for one campaign: RabbitMQ, a replica set of MongoDB, coordinators and workers, all real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pymongo
from pymongo.errors import PyMongoError

from devservices import mongodb_node
from devservices.mongodb_node import Node as MongoNode
from devservices.nodes import node_folder
from devservices.rabbitmq_node import Node as RabbitNode
from tests.acceptance.processes import Cluster, Coordinator, Worker, wait_for

MEMBERS = 3


class Plant:
    """What a campaign breaks. `broker`, `members` of the store, and the processes of `cluster`."""

    def __init__(self, folder: Path, broker: RabbitNode, members: list[MongoNode]) -> None:
        self.folder = folder
        self.broker = broker
        self.members = members
        self.cluster = Cluster(
            folder,
            {
                "HAULIER_BROKER_TYPE": "rabbitmq",
                "HAULIER_BROKER_RABBITMQ_URL": broker.url,
                "HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL": broker.management_url,
                "HAULIER_DATASTORE_TYPE": "mongodb",
                "HAULIER_DATASTORE_MONGODB_URL": self.store_url,
                "HAULIER_LOGGING_LEVEL": "debug",
            },
        )

    @property
    def store_url(self) -> str:
        """The address of the replica set."""
        return mongodb_node.url_of(self.members)

    @property
    def coordinators(self) -> list[Coordinator]:
        """All of them, also those that are not there now."""
        return self.cluster.coordinators

    @property
    def workers(self) -> list[Worker]:
        """All of them, also those that are not there now."""
        return self.cluster.workers

    def primary(self) -> MongoNode:
        """Return the member that is the primary now."""

        def found() -> MongoNode | None:
            return next((node for node in self.members if is_primary(node)), None)

        node: MongoNode = wait_for(found, 60, "a primary")
        return node

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, Any] | None:
        """Ask any coordinator that answers; None where none does now."""
        for server in self.coordinators:
            try:
                status, answer = server.call(
                    method, path, body, {"Content-Type": "application/json"}, timeout=12
                )
            except (URLError, OSError, ValueError):
                continue
            if status != 503:
                return status, answer
        return None

    def get(self, path: str, within: float = 120.0) -> Any:
        """Return what a GET answers, from whoever answers; it must be 200."""
        status, body = wait_for(lambda: self.ask("GET", path), within, f"an answer to {path}")
        assert status == 200, (path, status, body)
        return body


def is_primary(node: MongoNode) -> bool:
    """Whether this member says that it is the primary."""
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
        host="127.0.0.1", port=node.port, directConnection=True, timeoutMS=2000
    )
    try:
        return bool(client.admin.command("hello").get("isWritablePrimary"))
    except PyMongoError:
        return False
    finally:
        client.close()


@contextmanager
def running(
    folder: Path, coordinators: int = 2, workers: int = 3, members: int = MEMBERS
) -> Iterator[Plant]:
    """A plant that runs, and is gone in the end."""
    with ExitStack() as stack:
        broker = RabbitNode(stack.enter_context(node_folder("rabbitmq")))
        broker.start()
        nodes = [MongoNode(stack.enter_context(node_folder("mongodb"))) for _ in range(members)]
        for node in nodes:
            node.start()
        mongodb_node.initiate(nodes)
        plant = Plant(folder, broker, nodes)
        stack.callback(plant.cluster.stop)
        for _ in range(coordinators):
            plant.cluster.add_coordinator()
        for _ in range(workers):
            plant.cluster.add_worker()
        plant.cluster.wait_ready()
        yield plant
