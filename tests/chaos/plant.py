"""A whole plant for one campaign: RabbitMQ, a replica set of MongoDB, coordinators and workers, all real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError

import pymongo
from pymongo.database import Database
from pymongo.errors import PyMongoError

from devservices import mongodb_node
from devservices.mongodb_node import Node as MongoNode
from devservices.nodes import node_folder
from devservices.rabbitmq_node import Node as RabbitNode
from tests.acceptance.processes import Cluster, Coordinator, Worker, wait_for
from tests.chaos.clocks import can_set_clocks, clock_of
from tests.chaos.disks import SmallDisk, can_mount, small_disk
from tests.chaos.link import Link, add_far_worker, can_be_laid, link_to
from tests.services.engine_proxy import EngineProxy

MEMBERS = 3


class Site:
    """The processes of `cluster`, asked as one."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.engine: EngineProxy | None = None
        """Before the Docker engine of the worker for containers, where there is one."""

    @property
    def contained(self) -> bool:
        """Whether there is a worker for containers."""
        return self.engine is not None

    @property
    def coordinators(self) -> list[Coordinator]:
        """All of them, also those that are not there now."""
        return self.cluster.coordinators

    @property
    def workers(self) -> list[Worker]:
        """All of them, also those that are not there now."""
        return self.cluster.workers

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any] | None:
        """Ask any coordinator that answers; None where none does now."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        for server in self.coordinators:
            try:
                status, answer = server.call(method, path, body, sent, timeout=12)
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


class Plant(Site):
    """What a campaign breaks: `broker`, `members` of the store, and the processes of `cluster`."""

    def __init__(self, folder: Path, broker: RabbitNode, members: list[MongoNode]) -> None:
        self.folder = folder
        self.broker = broker
        self.members = members
        settings = {
            "HAULIER_BROKER_TYPE": "rabbitmq",
            "HAULIER_BROKER_RABBITMQ_URL": broker.url,
            "HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL": broker.management_url,
            "HAULIER_DATASTORE_TYPE": "mongodb",
            "HAULIER_DATASTORE_MONGODB_URL": self.store_url,
        }
        super().__init__(Cluster(folder, settings))
        self.link: Link | None = None
        """Of the last worker of the shell runtime."""
        self.clock: Path | None = None
        """Sets the last coordinator's clock."""
        self.small: SmallDisk | None = None
        """Of the last member of the store."""

    @property
    def store_url(self) -> str:
        """The address of the replica set."""
        return mongodb_node.url_of(self.members)

    @property
    def near_workers(self) -> list[Worker]:
        """Those that have no link of their own."""
        return [worker for worker in self.workers if not worker.prefix]

    def primary(self) -> MongoNode:
        """Return the member that is the primary now."""

        def found() -> MongoNode | None:
            return next((node for node in self.members if is_primary(node)), None)

        node: MongoNode = wait_for(found, 60, "a primary")
        return node

    @contextmanager
    def database(self) -> Iterator[Database[dict[str, Any]]]:
        """The datastore's own database, past everything of ours."""
        with pymongo.MongoClient[dict[str, Any]](self.store_url) as client:
            yield client["haulier"]

    def nodes(self) -> set[str]:
        """Return the ids of all nodes that there ever were; the API lists those heard of lately."""
        with self.database() as database:
            return set(database["nodes"].distinct("_id"))


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
    folder: Path, coordinators: int = 2, workers: int = 3, *, docker_host: str = ""
) -> Iterator[Plant]:
    """A plant that runs, and is gone in the end.

    As far as this machine lets us: the last worker is at the far end of a link of its own, the last coordinator has
    a clock that can be set, the last member of the store a small disk. With `docker_host`, an engine's unix socket,
    one more worker runs containers, of the queue `contained`."""
    with ExitStack() as stack:
        broker = RabbitNode(stack.enter_context(node_folder("rabbitmq")))
        broker.start()
        nodes = [MongoNode(stack.enter_context(node_folder("mongodb"))) for _ in range(MEMBERS)]
        plant = Plant(folder, broker, nodes)
        if can_mount():
            plant.small = stack.enter_context(small_disk(nodes[-1].folder / "data"))
        for node in nodes:
            node.start()
        mongodb_node.initiate(nodes)
        if can_be_laid():
            plant.link = stack.enter_context(link_to(broker.port))
        if can_set_clocks():
            plant.clock = folder / "clock"
            plant.clock.write_text("+0")
        if docker_host:
            plant.engine = stack.enter_context(_engine_at(docker_host))
        stack.callback(plant.cluster.stop)
        _start(plant, coordinators, workers)
        yield plant


def _start(plant: Plant, coordinators: int, workers: int) -> None:
    cluster = plant.cluster
    for _ in range(coordinators - 1):
        cluster.add_coordinator()
    cluster.add_coordinator(**clock_of(plant.clock))
    for _ in range(workers - 1):
        cluster.add_worker()
    if plant.link is None:
        cluster.add_worker()
    else:
        add_far_worker(cluster, plant.link)
    if plant.engine is not None:
        add_contained(cluster, plant.engine)
    cluster.wait_ready()


@contextmanager
def _engine_at(docker_host: str) -> Iterator[EngineProxy]:
    with TemporaryDirectory(prefix="hp", dir="/tmp") as folder:  # a socket's path is short
        proxy = EngineProxy(Path(folder, "sock"), Path(docker_host.removeprefix("unix://")))
        with proxy.serving():
            yield proxy


def add_contained(cluster: Cluster, engine: EngineProxy) -> Worker:
    """Launch a worker that runs containers."""
    return cluster.add_worker(
        name=f"contained-{len(cluster.workers)}",
        HAULIER_RUNTIME_TYPE="docker",
        HAULIER_RUNTIME_DOCKER_HOST=engine.host,
        HAULIER_WORKER_QUEUES_DEFAULT="0",
        HAULIER_WORKER_QUEUES_CONTAINED="4",
        HAULIER_MOUNTS_BIND_ALLOWED="true",
    )
