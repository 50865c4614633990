"""What the MongoDB datastore does when servers fail, freeze, hand over or refuse."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo.errors import AutoReconnect
from structlog.testing import capture_logs

from coordinator.store import checkup
from coordinator.store.mongodb import MongoStore
from devservices import mongodb_node
from devservices.mongodb_node import Node
from devservices.nodes import node_folder
from devservices.places import LOOPBACK, free_port, listening
from devservices.processes import await_answer, halt, launch
from shared.errors import StoreMisconfigured, StoreUnavailable
from shared.model.documents import JobDocument
from shared.model.queries import Change
from tests.contract.documents import intent, job
from tests.services.fixtures import Database
from tests.services.need import need

pytestmark = [pytest.mark.mongodb, pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 150.0
WRITERS = 8


@pytest.fixture
def three_nodes() -> Iterator[list[Node]]:
    """A replica set of three, for one test."""
    need("mongodb")
    with ExitStack() as stack:
        nodes = [Node(stack.enter_context(node_folder("mongodb"))) for _ in range(3)]
        for node in nodes:
            node.start()
        mongodb_node.initiate(nodes)
        yield nodes


@asynccontextmanager
async def started(url: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(url, "haulier")
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def eventually(ask: Callable[[], Awaitable[Any]]) -> Any:
    """The answer, once it is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await asyncio.sleep(0.1)


class Load:
    """Writers that insert jobs and move them on, repeating what was not answered."""

    def __init__(self, store: MongoStore) -> None:
        self._store = store
        self.acknowledged: list[str] = []
        self.unanswered = 0
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(WRITERS)]

    async def _write(self, writer: int) -> None:
        for number in itertools.count():
            id = f"{writer}-{number}"
            await self._repeat(partial(self._store.insert, job(id)))
            moved = Change(
                kind=JobDocument,
                id=id,
                where={"state": "PENDING"},
                set={"state": "RUNNING"},
                add_then=(intent("begun"),),
            )
            await self._repeat(partial(self._store.change, moved))
            self.acknowledged.append(id)

    async def _repeat(self, ask: Callable[[], Awaitable[Any]]) -> None:
        while True:
            try:
                await ask()
            except StoreUnavailable:
                self.unanswered += 1
            else:
                return

    async def until(self, count: int) -> None:
        """Wait for so many more acknowledged jobs."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(PATIENCE):
            while len(self.acknowledged) < wanted:
                await asyncio.wait(self._tasks, timeout=0.05)
                for ended in (task for task in self._tasks if task.done()):
                    ended.result()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def check(self) -> None:
        """Nothing that was acknowledged is missing, and nothing was done twice."""
        found = await self._store.get_many(JobDocument, self.acknowledged)
        assert [each.id for each in found] == self.acknowledged
        assert {each.state for each in found} == {"RUNNING"}
        assert {tuple(one.id for one in each.then) for each in found} == {("begun",)}


def step_down(nodes: Sequence[Node]) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongodb_node.url_of(nodes)) as client:
        try:
            client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)
        except AutoReconnect:
            return


def primary_of(nodes: Sequence[Node]) -> Node:
    with pymongo.MongoClient[dict[str, Any]](mongodb_node.url_of(nodes)) as client:
        primary = client.admin.command("hello")["primary"]
    return next(node for node in nodes if node.host == primary)


async def test_a_step_down_under_load(three_nodes: list[Node]) -> None:
    async with started(mongodb_node.url_of(three_nodes)) as store:
        load = Load(store)
        for _ in range(2):
            await load.until(200)
            await asyncio.to_thread(step_down, three_nodes)
        await load.until(200)
        await load.stop()
        await load.check()
        assert load.unanswered == 0


async def test_a_primary_killed_under_load(three_nodes: list[Node]) -> None:
    async with started(mongodb_node.url_of(three_nodes)) as store:
        load = Load(store)
        await load.until(200)
        primary = await asyncio.to_thread(primary_of, three_nodes)
        await asyncio.to_thread(primary.kill)
        await load.until(400)
        await asyncio.to_thread(primary.start)
        await load.until(200)
        await load.stop()
        await load.check()


async def test_a_frozen_primary_under_load(three_nodes: list[Node]) -> None:
    async with started(mongodb_node.url_of(three_nodes)) as store:
        load = Load(store)
        await load.until(200)
        primary = await asyncio.to_thread(primary_of, three_nodes)
        primary.freeze()
        try:
            await load.until(400)
        finally:
            primary.thaw()
        await load.until(200)
        await load.stop()
        await load.check()


async def test_without_a_majority_nothing_is_acknowledged(three_nodes: list[Node]) -> None:
    async with started(mongodb_node.url_of(three_nodes)) as store:
        await store.insert(job("before"))
        primary = await asyncio.to_thread(primary_of, three_nodes)
        others = [node for node in three_nodes if node is not primary]
        for node in others:
            node.freeze()
        try:
            with pytest.raises(StoreUnavailable):
                await store.ping()
            with pytest.raises(StoreUnavailable):
                await store.insert(job("during"))
        finally:
            for node in others:
                node.thaw()
        await eventually(store.ping)
        await eventually(lambda: store.insert(job("after")))
        assert await eventually(lambda: store.get(JobDocument, "before")) == job("before")


async def test_a_server_that_is_away_for_a_while(own_mongodb: Node) -> None:
    async with started(mongodb_node.url_of([own_mongodb])) as store:
        await store.insert(job("before"))
        await asyncio.to_thread(own_mongodb.kill)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        asked = asyncio.get_running_loop().time()
        answers = await asyncio.gather(
            store.get(JobDocument, "before"),
            store.insert(job("x")),
            store.change(Change(kind=JobDocument, id="before", set={"state": "RUNNING"})),
            store.change_many([Change(kind=JobDocument, id="before", set={"state": "RUNNING"})]),
            store.insert_many([job("x")]),
            store.find(JobDocument, {}),
            store.count(JobDocument, {}),
            store.group_count(JobDocument, {}, "state"),
            store.delete(JobDocument, {"state": "NONE"}),
            store.vars("j", None, 0),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [StoreUnavailable] * len(answers)
        assert asyncio.get_running_loop().time() - asked < 12
        assert "Topology" not in str(answers[0])
        await asyncio.to_thread(own_mongodb.start)
        await eventually(store.ping)
        assert await store.get(JobDocument, "before") is not None


async def test_the_start_waits_for_a_server(own_mongodb: Node) -> None:
    await asyncio.to_thread(own_mongodb.stop)
    store = MongoStore(mongodb_node.url_of([own_mongodb]), "haulier")
    with capture_logs() as logs:
        starting = asyncio.create_task(store.start())
        async with asyncio.timeout(PATIENCE):
            while not logs:
                await asyncio.wait([starting], timeout=0.1)
        assert not starting.done()
        assert logs[0]["event"] == "waiting for the datastore"
        await asyncio.to_thread(own_mongodb.start)
        await asyncio.wait_for(starting, PATIENCE)
    await store.ping()
    await store.close()


async def test_the_start_says_what_a_new_replica_set_needs_and_goes_on_then() -> None:
    need("mongodb")
    with node_folder("mongodb") as folder:
        node = Node(folder)
        node.start()
        store = MongoStore(mongodb_node.url_of([node]), "begun_later")
        with capture_logs() as logs:
            starting = asyncio.create_task(store.start())
            async with asyncio.timeout(PATIENCE):
                while not logs:
                    await asyncio.wait([starting], timeout=0.1)
        assert "a new replica set needs rs.initiate()" in logs[0]["reason"]
        await asyncio.to_thread(mongodb_node.initiate, [node])
        await asyncio.wait_for(starting, PATIENCE)
        await store.close()


async def test_a_server_that_is_no_replica_set_is_warned_of() -> None:
    need("mongodb")
    with node_folder("mongodb") as folder:
        port = free_port()
        place = ("--bind_ip", LOOPBACK, "--port", str(port), "--dbpath", str(folder))
        launch(folder, [mongodb_node.program(), *place, "--nounixsocket"])
        await_answer("mongod", folder, lambda: listening(LOOPBACK, port))
        store = MongoStore(f"mongodb://{LOOPBACK}:{port}/", "alone")
        with capture_logs() as logs:
            await store.start()
        await store.close()
        halt(folder)
    assert [line["event"] for line in logs] == ["MongoDB is no replica set, as it must be"]


async def test_a_start_that_waits_can_be_given_up(own_mongodb: Node) -> None:
    await asyncio.to_thread(own_mongodb.stop)
    store = MongoStore(mongodb_node.url_of([own_mongodb]), "haulier")
    starting = asyncio.create_task(store.start())
    await asyncio.wait([starting], timeout=0.2)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_many_start_at_once(own_mongodb: Node) -> None:
    url = mongodb_node.url_of([own_mongodb])
    stores = [MongoStore(url, "haulier") for _ in range(8)]
    await asyncio.gather(*(store.start() for store in stores))
    assert sum(await asyncio.gather(*(store.insert(job("j")) for store in stores))) == 1
    times = [store.now() for store in stores]
    assert max(times) - min(times) < 100_000
    await asyncio.gather(*(store.close() for store in stores))


@pytest.fixture
def guarded() -> Iterator[str]:
    """A server on its own, not of a replica set, that asks for a password; its `host:port`."""
    need("mongodb")
    with node_folder("mongodb") as folder:
        port, data = free_port(), folder / "data"
        data.mkdir(parents=True)
        launch(folder, _guarded(port, data))
        await_answer("mongod", folder, lambda: listening(LOOPBACK, port))
        with pymongo.MongoClient[dict[str, Any]](LOOPBACK, port) as client:
            client.admin.command("createUser", "alice", pwd="right", roles=["root"])
        yield f"{LOOPBACK}:{port}"
        halt(folder)


def _guarded(port: int, data: Path) -> list[str | Path]:
    return [
        mongodb_node.program(),
        *("--auth", "--bind_ip", LOOPBACK, "--port", str(port), "--dbpath", str(data)),
        *("--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"),
    ]


async def test_credentials(guarded: str) -> None:
    for url, said in (
        (
            f"mongodb://{guarded}",
            "asks for a user and a password, which datastore.mongodb.url lacks",
        ),
        (f"mongodb://alice:wrong@{guarded}", "rejected the credentials in datastore.mongodb.url"),
    ):
        with pytest.raises(StoreMisconfigured, match=said):
            await MongoStore(url, "haulier").start()
    async with started(f"mongodb://alice:right@{guarded}") as store:
        await store.insert(job("j"))
        changed = await store.change(Change(kind=JobDocument, id="j", add_then=(intent("i"),)))
        assert changed is not None
        await store.ping()


async def test_a_user_whose_rights_were_taken_is_said_by_the_ping(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "HOLDS", 0.0)
    right = [{"role": "readWrite", "db": "haulier"}]
    with pymongo.MongoClient[dict[str, Any]](f"mongodb://alice:right@{guarded}") as client:
        client.admin.command("createUser", "bob", pwd="b", roles=right)
        async with started(f"mongodb://bob:b@{guarded}/?authSource=admin") as store:
            await store.ping()
            client.admin.command("revokeRolesFromUser", "bob", roles=right)
            reading = [{"role": "read", "db": "haulier"}]
            client.admin.command("grantRolesToUser", "bob", roles=reading)
            with pytest.raises(
                StoreUnavailable, match=r"refuses this user: not authorized on haulier$"
            ):
                await store.ping()
            assert await store.get(JobDocument, "j") is None
            client.admin.command("grantRolesToUser", "bob", roles=right)
            await store.ping()


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("http://127.0.0.1", "haulier"),
        ("mongodb://127.0.0.1:99999", "haulier"),
        ("mongodb://127.0.0.1/?nonsense=1&w=x&retryWrites=maybe", "haulier"),
        ("mongodb://127.0.0.1", "a b$"),
        ("mongodb://127.0.0.1", ""),
    ],
)
async def test_a_bad_address_is_refused_at_once(url: str, database: str) -> None:
    with pytest.raises(StoreMisconfigured, match=r"datastore\.mongodb"):
        await asyncio.wait_for(MongoStore(url, database).start(), 3)


async def test_a_newer_schema_is_refused(own_mongodb: Node) -> None:
    url = mongodb_node.url_of([own_mongodb])
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        client["haulier"]["meta"].insert_one({"_id": "schema", "version": 99})
    with pytest.raises(StoreMisconfigured, match="newer"):
        await MongoStore(url, "haulier").start()


async def test_what_finds_nothing_to_delete_writes_nothing(
    mongodb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[object] = []
    delete_many = AsyncIOMotorCollection.delete_many

    def counted(collection: Any, query: Any) -> Any:
        writes.append(query)
        return delete_many(collection, query)

    monkeypatch.setattr(AsyncIOMotorCollection, "delete_many", counted)
    store = MongoStore(mongodb_database.url, mongodb_database.name)
    await store.start()
    try:
        assert await store.delete(JobDocument, {"id": "j"}) == 0
        assert not writes
        await store.insert(job("j"))
        assert await store.delete(JobDocument, {"id": "j"}) == 1
        assert len(writes) == 1
    finally:
        await store.close()
