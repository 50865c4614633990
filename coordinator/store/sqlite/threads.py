"""The threads that use SQLite: one writes, a few read.

The writer takes everything that waits, makes it one transaction, and lets those who wait go on only
when the disk has it (group commit): a sync is shared by all who came while the one before was under
way. In WAL mode readers never wait for it, and see all that was committed before they began.
"""

from __future__ import annotations

import asyncio
import functools
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from coordinator.store.sqlite.errors import blames_statement, sqlite_errors
from shared.errors import StoreCorrupt, StoreUnavailable
from shared.supervision import present
from shared.threads import in_thread

_T = TypeVar("_T")
_Operation = Callable[[sqlite3.Connection], _T]

DEADLINE = 8.0
"""Seconds until a caller no longer waits, and a read ends that is still under way."""
_LOOK_EVERY = 1000
"""Instructions of SQLite's machine between looks whether a read is to end."""
_TOO_LATE = f"the datastore did not answer within {DEADLINE:g} s"
_BATCH = 256
"""Operations that share a transaction at most."""
READERS = 6
"""Threads that read. Requests have four of them at most: what they leave is the engine's."""
CACHED_STATEMENTS = 512
WRITER_CACHE_KIB = 16_384
READER_CACHE_KIB = 2_048
"""Memory for pages, of each connection. The system keeps the file's pages too, and a process should not grow with its
file."""


def connected(path: Path) -> sqlite3.Connection:
    """Return a connection with the settings that all of ours have, to a file that is there.

    (A file that was deleted is an error, not the begin of an empty one.)"""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=CACHED_STATEMENTS,
    )
    for setting in (
        "busy_timeout = 5000",
        "synchronous = FULL",
        "temp_store = MEMORY",
        f"cache_size = -{WRITER_CACHE_KIB}",
        "journal_size_limit = 67108864",
        "wal_autocheckpoint = 4000",
    ):
        connection.execute(f"PRAGMA {setting}")
    connection.create_function("holds", 2, _holds, deterministic=True)
    return connection


def _holds(text: str, terms: str) -> bool:
    """Return whether `text` has all of `terms` (folded, as JSON) in it, in any case.

    (SQLite's own LIKE folds ASCII only, and a chain of conditions has a limit.)
    """
    folded = text.casefold()
    return all(term in folded for term in _terms(terms))


@functools.lru_cache(maxsize=16)
def _terms(text: str) -> list[str]:
    return msgspec.json.decode(text, type=list[str])


class _Write:
    """An operation and who waits for it."""

    def __init__(self, operation: _Operation[Any]) -> None:
        self.operation = operation
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        """Tell who waits, unless nobody does any more."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """The one thread that writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sqlite writer", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Begin to work; what was asked for before is done first."""
        self._thread.start()

    async def run(self, operation: _Operation[_T]) -> _T:
        """Return what `operation` gave, once its transaction is on the disk.

        Its statements count all or not at all. Raises what it raised, or `StoreUnavailable`."""
        if self._closed:
            raise StoreUnavailable("the datastore is closed")
        write = _Write(operation)
        self._queue.put(write)
        return await within_deadline(write.future)

    async def close(self) -> None:
        """Finish what was asked for, then end the thread, if it was started."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        if self._thread.ident is not None:
            await in_thread(self._thread.join)

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        while batch := self._taken():
            try:
                connection = connection or connected(self._path)
                self._commit(connection, batch)
            except sqlite3.Error as error:
                _abandon(connection)
                connection = None
                self._fail(batch, error)
            _settle(batch)
        _abandon(connection)

    def _taken(self) -> list[_Write]:
        """Return all that waits (nothing: the end), waiting for the first."""
        batch: list[_Write] = []
        write = self._queue.get()
        while write is not None:
            batch.append(write)
            if len(batch) == _BATCH or self._queue.empty():
                return batch
            write = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _commit(self, connection: sqlite3.Connection, batch: list[_Write]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for write in batch:
            connection.execute("SAVEPOINT one")
            try:
                write.result = write.operation(connection)
            except Exception as error:
                if not blames_statement(error):
                    raise
                write.error = self._known(error)
                connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        connection.execute("COMMIT")

    def _fail(self, batch: list[_Write], error: sqlite3.Error) -> None:
        for write in batch:
            write.error = sqlite_errors(error, self._path)

    def _known(self, error: Exception) -> Exception:
        return sqlite_errors(error, self._path) if isinstance(error, sqlite3.Error) else error


def _abandon(connection: sqlite3.Connection | None) -> None:
    """Close a connection, rolling back what it had begun; the next batch begins with a fresh one."""
    if connection is not None:
        connection.close()


def _settle(batch: list[_Write]) -> None:
    """Wake who waits, one wake-up for each event loop."""
    for loop in {write.loop for write in batch}:
        writes = [write for write in batch if write.loop is loop]
        try:
            loop.call_soon_threadsafe(_settle_all, writes)
        except RuntimeError:  # the loop was closed: nobody waits
            continue


def _settle_all(writes: list[_Write]) -> None:
    for write in writes:
        write.settle()


class Readers:
    """The threads that read, each on its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite reader")

    async def run(self, operation: _Operation[_T]) -> _T:
        """Return what `operation` gave. Raises what it raised, or `StoreUnavailable`."""
        return await self._done(
            functools.partial(self._read, operation, time.monotonic() + DEADLINE)
        )

    async def file_exists(self) -> bool:
        """Return whether the file is there. Raises `StoreUnavailable`."""
        return await self._done(self._path.exists)

    async def _done(self, function: Callable[[], _T]) -> _T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, function)
        except RuntimeError:
            raise StoreUnavailable("the datastore is closed") from None
        return await within_deadline(future)

    async def close(self) -> None:
        """Let what is read be read, then end the threads."""
        await in_thread(self._pool.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _read(self, operation: _Operation[_T], until: float) -> _T:
        self._local.until = until
        if self._over():
            raise StoreUnavailable(_TOO_LATE)
        try:
            return operation(self._connection())
        except sqlite3.Error as error:
            raise sqlite_errors(error, self._path) from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connected(self._path)
            connection.execute("PRAGMA query_only = ON")
            connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
            connection.set_progress_handler(self._over, _LOOK_EVERY)
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    def _over(self) -> bool:
        """Tell whether nobody waits any more for what this thread reads."""
        return time.monotonic() > float(self._local.until)


async def within_deadline(future: asyncio.Future[_T]) -> _T:
    """Return a future's result, or raise `StoreUnavailable` when the deadline has passed. A damaged file ends the
    process, whoever met it."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await future
    except StoreCorrupt as error:
        present.get().fail(error)
        raise
    except TimeoutError:
        raise StoreUnavailable(_TOO_LATE) from None
