"""Datastores for the contract suite: an empty place in each, and stores opened on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from coordinator.store.port import Store
from coordinator.store.sqlite import SqliteStore
from shared.encryption import Vault
from tests.services.fixtures import Database, database_at
from tests.simulation.store import MemoryData, MemoryStore

WRITE_VERSION = 18
"""Where in a SQLite file it stands who may write it: with 3 no SQLite of today does."""


class StorePlace:
    """Where a datastore's data lies; each `open` gives a started store on the same data."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.name = str(request.param)
        self.path = folder / "haulier.db"
        self.data = MemoryData()
        self.database: Any = None
        if self.name == "mongodb":
            self.database = request.getfixturevalue("store_database")
        self._writable = True
        self._stack = AsyncExitStack()

    def new(self, vault: Vault | None = None) -> Store:
        """Return a store that is not started."""
        if self.name == "mongodb":
            from coordinator.store.mongodb import MongoStore

            return MongoStore(self.database.url, self.database.name, vault)
        if self.name == "memory":
            return MemoryStore(self.data, vault)
        return SqliteStore(self.path, vault)

    async def open(self, vault: Vault | None = None) -> Store:
        """Return a started store; it is closed in the end, if not before."""
        store = self.new(vault)
        await store.start()
        self._stack.push_async_callback(store.close)
        return store

    def raw(self) -> bytes:
        """Return all bytes that rest there."""
        if self.name == "mongodb":
            return self._raw_mongodb()
        if self.name == "memory":
            return self.data.raw()
        files = self.path.parent.glob(self.path.name + "*")
        return b"".join(file.read_bytes() for file in files)

    def _raw_mongodb(self) -> bytes:
        import bson
        import pymongo

        with pymongo.MongoClient[dict[str, Any]](self.database.url) as client:
            database = client[self.database.name]
            names = database.list_collection_names()
            return b"".join(bson.encode(each) for name in names for each in database[name].find())

    def refuse_writes(self) -> None:
        """Have the datastore refuse to write from now on."""
        self._set_writable(False)

    def take_writes(self) -> None:
        """Have it write again."""
        self._set_writable(True)

    def _set_writable(self, writable: bool) -> None:
        self._writable = writable
        if self.name == "memory":
            self.data.writable = writable
        elif self.name == "sqlite":
            with self.path.open("r+b") as file:
                file.seek(WRITE_VERSION)
                file.write(b"\x02" if writable else b"\x03")
        else:
            self._set_mongodb_writable(writable)

    def _set_mongodb_writable(self, writable: bool) -> None:
        import pymongo

        with pymongo.MongoClient[dict[str, Any]](self.database.url) as client:
            database = client[self.database.name]
            for name in database.list_collection_names():
                validator = {} if writable else {"_id": "none that is"}
                database.command("collMod", name, validator=validator)

    async def close(self) -> None:
        await self._stack.aclose()
        if not self._writable:
            self.take_writes()


OF_THE_PRODUCT = ["sqlite", pytest.param("mongodb", marks=pytest.mark.mongodb)]
"""The datastores that users have."""


@pytest.fixture(scope="session")
def kept_database(mongodb_url: str) -> Iterator[Database]:
    """A database for one test after another: to make its collections and indexes takes longer than most tests."""
    with database_at(mongodb_url) as database:
        yield database


@pytest.fixture
def store_database(kept_database: Database) -> Database:
    """Where a test's MongoDB store lies: an empty database, which may have its collections already."""
    import pymongo

    with pymongo.MongoClient[dict[str, Any]](kept_database.url) as client:
        database = client[kept_database.name]
        for name in database.list_collection_names():
            database[name].delete_many({})
    return kept_database


@pytest.fixture(params=[*OF_THE_PRODUCT, "memory"])
async def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorePlace]:
    place = StorePlace(request, tmp_path)
    yield place
    await place.close()


@pytest.fixture
async def store(store_place: StorePlace) -> Store:
    return await store_place.open()
