"""The API over a real SQLite datastore and a real broker, listening on a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from argon2 import PasswordHasher

from coordinator.api import passwords
from coordinator.api.app import ApiRunner, create_app
from coordinator.store.sqlite import SqliteStore
from shared.broker.memory import MemoryBroker
from shared.config.schema import Config
from tests.datastores import sqlite_file
from tests.unit.api.plain_commands import PlainCommands
from tests.unit.api.served import VERSION, Served

Serve = Callable[..., Any]


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hash costs by design is what `test_passwords.py` is about, and no other test."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", cheap)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(folder: Path, stack: AsyncExitStack) -> Serve:
    """Start an API with a configuration, and where it is given the datastore of another one."""

    async def start(config: Config | None = None, shared: SqliteStore | None = None) -> Served:
        store, broker = (
            shared or SqliteStore(sqlite_file(folder)),
            MemoryBroker(node_expiry=60.0),
        )
        if shared is None:
            await store.start()
            stack.push_async_callback(store.close)
        await broker.start()
        stack.push_async_callback(broker.close)
        commands = PlainCommands(store)
        app = create_app(store, broker, commands, config or Config(), VERSION)
        runner = ApiRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        served = Served(store, broker, runner, commands)
        stack.push_async_callback(served.session.close)
        return served

    return start


@pytest.fixture
async def api(start: Serve) -> Served:
    """The API as it is by default."""
    served = await start()
    assert isinstance(served, Served)
    return served
