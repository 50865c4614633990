"""The datastore in a SQLite file, for a single process."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from coordinator.store.checkup import Checkup
from coordinator.store.clock import FollowingClock, until_available, wall_clock
from coordinator.store.codec import Codec, fields_of
from coordinator.store.key_check import checked
from coordinator.store.port import LOG_CAP, NO_LIMITS, DocumentPage, Viewer
from coordinator.store.search import (
    log_order,
    log_owner,
    readers_of,
    storable,
    target_of,
    understood,
)
from coordinator.store.sqlite import reads, writes
from coordinator.store.sqlite.errors import sqlite_start_errors
from coordinator.store.sqlite.lock import FileLock
from coordinator.store.sqlite.schema import prepare_schema
from coordinator.store.sqlite.sql import Clause, Rows, columns_of, order_clause, where_clause
from coordinator.store.sqlite.threads import Readers, Writer, connected
from shared.encryption import Vault
from shared.errors import StoreMisconfigured, StoreUnavailable
from shared.model.documents import (
    Document,
    Intent,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
)
from shared.model.queries import Change, Where
from shared.supervision import Loop
from shared.threads import in_thread

_D = TypeVar("_D", bound=Document)

CHECK_INTERVAL = 5.0
"""Seconds between looks at the file: damage to it is met even where nobody works."""
_AT_ONCE = 500
"""Documents of a bulk that share an operation, so that a big one keeps nobody waiting."""


class SqliteStore:
    """Keeps documents in the file `path`; its directory is made. See
    `coordinator.store.port.Store`.
    """

    def __init__(self, path: str | Path, vault: Vault | None = None) -> None:
        self._path = Path(path).expanduser().resolve()
        self._codec = Codec(vault)
        self._rows = Rows(self._codec)
        self._changer = writes.Changer(self._codec)
        self._vault = vault
        self._lock = FileLock(self._path)
        self._writer = Writer(self._path)
        self._readers = Readers(self._path)
        self._clock = FollowingClock(wall_clock)
        self._checkup = Checkup(self._reads_and_writes)
        self._watch = Loop("SQLite's file", self._look, every=0.0)

    async def start(self) -> None:
        """Lock the file and make or move on its schema."""
        await in_thread(self._claim)
        try:
            await until_available(lambda: in_thread(self._prepare))
        except BaseException:
            self._lock.release()
            raise
        self._writer.start()
        self._watch.start()

    def _claim(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.take()
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            self._lock.release()
            raise StoreMisconfigured(
                f"the datastore {self._path} can not be opened: {error}"
            ) from error

    def _prepare(self) -> None:
        try:
            connection = connected(self._path)
            try:
                prepare_schema(connection)
                self._check_key(connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise sqlite_start_errors(error, self._path) from error

    def _check_key(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT value FROM meta WHERE key = 'encryption'").fetchone()
        connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('encryption', ?)",
            (checked(self._vault, None if row is None else row[0]),),
        )

    async def close(self) -> None:
        """Finish what was asked for, close the file, and let another process have it."""
        await self._watch.close()
        await self._writer.close()
        await self._readers.close()
        self._lock.release()

    async def ping(self) -> None:
        """Return if the file is there, takes a write and gives it back, within 2 s."""
        await self._checkup()

    async def _look(self) -> None:
        await asyncio.sleep(CHECK_INTERVAL)
        await self._checkup()

    async def _reads_and_writes(self) -> None:
        if not await self._readers.file_exists():
            raise StoreUnavailable(f"the datastore's file {self._path} is gone")
        at = wall_clock()
        await self._writer.run(partial(writes.note_ping, at=at))
        if await self._readers.run(reads.noted_ping) < at:
            raise StoreUnavailable(f"the datastore {self._path} does not give back what it took")

    def now(self) -> Micros:
        """Return this machine's time, never running backwards."""
        return self._clock.now()

    def hosts(self) -> Sequence[str]:
        """Return no host: it has no servers."""
        return ()

    async def get(self, kind: type[_D], id: str) -> _D | None:
        """Return one document, or None."""
        found = await self.get_many(kind, [id])
        return found[0] if found else None

    async def get_many(self, kind: type[_D], ids: Sequence[str]) -> list[_D]:
        """Return those of `ids` that exist, in the order of `ids`."""
        wanted = [id for id in dict.fromkeys(ids) if storable(id)]
        rows = await self._readers.run(
            lambda connection: reads.rows_by_id(connection, kind, wanted)
        )
        found = {document.id: document for document in self._documents(kind, rows)}
        return [found[id] for id in ids if id in found]

    async def insert(self, document: Document) -> bool:
        """Store a new document."""
        kind, row = type(document), self._rows.to_row(document)
        return await self._writer.run(lambda connection: writes.insert_row(connection, kind, row))

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """Store those whose id is new."""
        made = 0
        for start in range(0, len(documents), _AT_ONCE):
            some = documents[start : start + _AT_ONCE]
            rows = [(type(document), self._rows.to_row(document)) for document in some]
            made += await self._writer.run(partial(writes.insert_rows, rows=rows))
        return made

    async def change(self, change: Change[_D]) -> _D | None:
        """Make one compare-and-set."""
        return await self._changed(change.kind, self._changer.prepared(change))

    async def change_many(self, changes: Sequence[Change[Any]]) -> int:
        """Make many compare-and-sets."""
        matched = 0
        for start in range(0, len(changes), _AT_ONCE):
            some = [self._changer.prepared(each) for each in changes[start : start + _AT_ONCE]]
            matched += await self._writer.run(partial(writes.apply_all, changes=some))
        return matched

    async def change_first(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str],
        set: Mapping[str, Any],
        add_then: tuple[Intent, ...] = (),
    ) -> _D | None:
        """Compare-and-set the first document of `order` that matches `where`."""
        return await self._changed(
            kind, self._changer.prepared_first(kind, where, order, set, add_then)
        )

    async def _changed(self, kind: type[_D], prepared: writes.PreparedChange) -> _D | None:
        row = await self._writer.run(prepared.apply)
        return None if row is None else self._rows.from_row(kind, columns_of(kind), row)

    async def delete(self, kind: type[Document], where: Where, limit: int | None = None) -> int:
        """Delete what matches, at most `limit`."""
        clause = where_clause(kind, where)
        deleted = 0
        while limit is None or deleted < limit:
            some = _AT_ONCE if limit is None else min(_AT_ONCE, limit - deleted)
            gone = await self._writer.run(
                partial(writes.delete_rows, kind=kind, where=clause, limit=some)
            )
            deleted += gone
            if gone < some:
                break
        return deleted

    async def find(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str] = (),
        limit: int | None = None,
        skip: int = 0,
        without: Sequence[str] = (),
    ) -> list[_D]:
        """Return what matches."""
        names = columns_of(kind, tuple(without))
        select = reads.Select(
            kind,
            names,
            where_clause(kind, where),
            order_clause(kind, order),
            reads.ALL if limit is None else limit,
            skip,
        )
        return self._documents(kind, await self._readers.run(select.rows), names)

    async def count(self, kind: type[Document], where: Where, cap: int | None = None) -> int:
        """Return how many match, counting no further than `cap`."""
        clause = where_clause(kind, where)
        return await self._readers.run(
            lambda connection: reads.counted_rows(connection, kind, clause, cap)
        )

    async def group_count(self, kind: type[Document], where: Where, by: str) -> dict[str, int]:
        """Return how many match, by the value of a field."""
        clause, name = where_clause(kind, where), target_of(kind, by).field.name
        return await self._readers.run(
            lambda connection: reads.grouped(connection, kind, clause, name)
        )

    async def overdue(
        self, kind: type[_D], before: Micros, limit: int, without: Sequence[str] = ()
    ) -> list[_D]:
        """Return documents that hold an intent due before `before`."""
        rows = await self._readers.run(
            lambda connection: reads.overdue_rows(connection, kind, before, limit, without)
        )
        return self._documents(kind, rows, columns_of(kind, tuple(without)))

    async def search_jobs(
        self,
        *,
        terms: Sequence[str],
        tags_any: Sequence[Sequence[str]],
        state: str | None,
        viewer: Viewer | None,
        skip: int,
        limit: int,
        cap: int,
        where: Where = NO_LIMITS,
        without: Sequence[str] = (),
    ) -> DocumentPage[JobDocument]:
        """Return jobs, newest first."""
        search = understood(terms, tags_any, state, viewer, where)
        if search is None:
            return DocumentPage([], 0)
        names = columns_of(JobDocument, tuple(without))
        found = await self._readers.run(
            lambda connection: reads.found_jobs(connection, search, names, skip, limit, cap)
        )
        items = self._documents(JobDocument, found.rows, names)
        return DocumentPage(items, found.total, found.capped)

    async def tag_counts(self, viewer: Viewer | None, newest: int) -> dict[str, int]:
        """Return how many of the newest jobs have each tag."""
        readers = None if viewer is None else readers_of(viewer)
        return await self._readers.run(
            lambda connection: reads.counted_tags(connection, readers, newest)
        )

    async def append_log(self, parts: Sequence[LogPartDocument]) -> None:
        """Store log parts."""
        await self.insert_many(parts)

    async def log_page(
        self,
        *,
        job_id: str | None,
        task_ids: Sequence[str] | None,
        terms: Sequence[str],
        skip: int,
        limit: int,
        since: Micros | None = None,
        until: Micros | None = None,
        oldest_first: bool = False,
        counted: bool = True,
    ) -> DocumentPage[LogPartDocument]:
        """Return log parts, newest first."""
        if not all(map(storable, terms)):
            return DocumentPage([], 0)
        where = where_clause(LogPartDocument, log_owner(job_id, task_ids, since, until))
        if terms:
            folded = msgspec.json.encode([term.casefold() for term in terms]).decode()
            where = Clause.joined(" AND ", [where, Clause("holds(contents, ?)", (folded,))])
        cap = LOG_CAP if terms else None
        order = order_clause(LogPartDocument, log_order(oldest_first=oldest_first))
        select = reads.Select(
            LogPartDocument, columns_of(LogPartDocument), where, order, limit, skip
        )
        items = self._documents(LogPartDocument, await self._readers.run(select.rows))
        if not counted:
            return DocumentPage(items, len(items))
        count = await self._readers.run(
            lambda connection: reads.counted_rows(
                connection, LogPartDocument, where, cap and cap + 1
            )
        )
        total = count if cap is None else min(count, cap)
        return DocumentPage(items, total, count > total)

    async def vars(
        self,
        job_id: str,
        names: Sequence[str] | None,
        restarts: int,
        began: int | None = None,
        most: int | None = None,
    ) -> dict[str, str]:
        """Return `tasks.<var>`."""
        values = await self._readers.run(
            lambda connection: reads.var_values(connection, job_id, names, restarts, began, most)
        )
        result = fields_of(TaskDocument)["result"]
        return {
            var: "" if value is None else self._codec.decode_value(result, value)
            for var, value in values.items()
        }

    def _documents(
        self, kind: type[_D], rows: Sequence[reads.Row], names: Sequence[str] | None = None
    ) -> list[_D]:
        read = columns_of(kind) if names is None else names
        return [self._rows.from_row(kind, read, row) for row in rows]
