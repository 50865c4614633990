"""The queries that the reader threads run."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.store.codec import fields_of
from coordinator.store.port import ResultsTooLarge, ensure_few
from coordinator.store.search import Search, tag_tokens, words_of
from coordinator.store.sqlite.schema import SEARCH
from coordinator.store.sqlite.sql import (
    OVERDUE_COLUMN,
    READERS,
    ROW,
    Clause,
    columns_of,
    from_column,
    marks,
    quoted_name,
    quoted_names,
    where_clause,
)
from shared.model.documents import Document, JobDocument, Micros, TaskDocument

Row = tuple[Any, ...]

ALL = -1
"""LIMIT's word for no limit."""
IDS_AT_ONCE = 500


class Select(msgspec.Struct, frozen=True):
    """Rows of a table."""

    kind: type[Document]
    names: Sequence[str]
    where: Clause
    order: str = ""
    limit: int = ALL
    skip: int = 0

    def rows(self, connection: sqlite3.Connection) -> list[Row]:
        """Return them."""
        statement = (
            f"SELECT {quoted_names(self.names)} FROM {quoted_name(self.kind.collection)} "
            f"WHERE {self.where.sql}{self.order} LIMIT ? OFFSET ?"
        )
        values = (*self.where.values, self.limit, self.skip)
        return connection.execute(statement, values).fetchall()


def noted_ping(connection: sqlite3.Connection) -> Micros:
    """Return what `note_ping` noted last, having looked for a job too: a table that is at work."""
    rows_by_id(connection, JobDocument, ["ping"])
    row = connection.execute("SELECT value FROM meta WHERE key = 'ping'").fetchone()
    return 0 if row is None else int(row[0])


def rows_by_id(
    connection: sqlite3.Connection, kind: type[Document], ids: Sequence[str]
) -> list[Row]:
    """Return rows by their ids, in any order."""
    found: list[Row] = []
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = tuple(ids[start : start + IDS_AT_ONCE])
        where = Clause(f"id IN ({marks(len(some))})", some)
        found += Select(kind, columns_of(kind), where).rows(connection)
    return found


def counted_rows(
    connection: sqlite3.Connection, kind: type[Document], where: Clause, cap: int | None
) -> int:
    """Return how many rows match, counting no further than `cap`."""
    (count,) = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {quoted_name(kind.collection)} WHERE {where.sql} LIMIT ?)",
        (*where.values, ALL if cap is None else cap),
    ).fetchone()
    return int(count)


def grouped(
    connection: sqlite3.Connection, kind: type[Document], where: Clause, by: str
) -> dict[str, int]:
    """Return how many rows match by the value of a column."""
    column = quoted_name(by)
    found = connection.execute(
        f"SELECT {column}, count(*) FROM {quoted_name(kind.collection)} "
        f"WHERE {where.sql} AND {column} IS NOT NULL GROUP BY {column}",
        where.values,
    )
    return {str(value): count for value, count in found}


def overdue_rows(
    connection: sqlite3.Connection,
    kind: type[Document],
    before: Micros,
    limit: int,
    without: Sequence[str],
) -> list[Row]:
    """Return rows with an intent due before `before`, the longest overdue first."""
    return Select(
        kind,
        columns_of(kind, tuple(without)),
        Clause(f"{OVERDUE_COLUMN} < ?", (before,)),
        f" ORDER BY {OVERDUE_COLUMN}",
        limit,
    ).rows(connection)


def var_values(
    connection: sqlite3.Connection,
    job_id: str,
    names: Sequence[str] | None,
    restarts: int,
    began: int | None,
    most: int | None,
) -> dict[str, Any]:
    """Return, by var, what rests as the result of the COMPLETED task that completed latest with it."""
    if names is None:
        there = "SELECT DISTINCT var FROM tasks WHERE job_id = ? AND var IS NOT NULL"
        names = [name for (name,) in connection.execute(there, (job_id,))]
    ensure_few(names, most)
    statement = (
        "SELECT result FROM tasks WHERE job_id = ? AND state = 'COMPLETED' "
        "AND (restarts = ? OR restarts < ? AND (? IS NULL OR position < ?)) AND var = ? "
        "ORDER BY completed_at DESC, attempt DESC, id DESC LIMIT 1"
    )
    these = (job_id, restarts, restarts, began, began)
    result = fields_of(TaskDocument)["result"]
    latest: dict[str, Any] = {}
    left = math.inf if most is None else most
    for name in names:
        row = connection.execute(statement, (*these, name)).fetchone()
        if row is not None:
            left -= len(name) + len(row[0] or b"")
            if left < 0:
                raise ResultsTooLarge(f"more than {most:,} bytes of results")
            latest[name] = from_column(result, row[0])
    return latest


class RowPage(msgspec.Struct, frozen=True):
    """Rows of a search, and how many there are of them up to a cap."""

    rows: list[Row]
    total: int
    capped: bool


def found_jobs(
    connection: sqlite3.Connection,
    search: Search,
    names: Sequence[str],
    skip: int,
    limit: int,
    cap: int,
) -> RowPage:
    """Return these columns of the jobs that a search finds, newest first."""
    if search.unfiltered:
        page = f"SELECT {ROW} FROM jobs ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?"
        keys = connection.execute(page, (limit, skip)).fetchall()
        (total,) = connection.execute("SELECT value FROM meta WHERE key = 'jobs'").fetchone()
        return RowPage(_by_row(connection, names, keys), int(total), capped=False)
    found = _matching(search)
    page = f"{found.sql} LIMIT ? OFFSET ?"
    keys = connection.execute(page, (*found.values, limit, skip)).fetchall()
    counting = f"SELECT count(*) FROM ({found.sql} LIMIT ?)"
    (count,) = connection.execute(counting, (*found.values, cap + 1)).fetchone()
    return RowPage(_by_row(connection, names, keys), min(count, cap), capped=count > cap)


def _matching(search: Search) -> Clause:
    """Return the question for the row keys of what a search finds, newest first."""
    where = where_clause(JobDocument, search.where)
    of_schedule = "schedule.id" in search.where and not (search.words or search.tags_any)
    if search.unworded or of_schedule:
        where = Clause.joined(" AND ", [where, *_seen(search)])
        return Clause(
            f"SELECT {ROW} FROM jobs WHERE {where.sql} ORDER BY created_at DESC, id DESC",
            where.values,
        )
    worded = f"SELECT rowid FROM {SEARCH} WHERE {SEARCH} MATCH ?"
    if search.where:
        worded += f" AND EXISTS (SELECT 1 FROM jobs WHERE {ROW} = {SEARCH}.rowid AND {where.sql})"
    return Clause(f"{worded} ORDER BY rowid DESC", (_question(search), *where.values))


def _seen(search: Search) -> list[Clause]:
    """Return what a search's state and readers ask of a job's row: for few jobs cheaper than the index of words."""
    seen = []
    if search.state is not None:
        seen.append(Clause("state = ?", (search.state,)))
    if search.readers is not None:
        tokens = msgspec.json.encode(search.readers).decode()
        any_of = f"EXISTS (SELECT 1 FROM json_each(?) WHERE instr({READERS}, value))"
        seen.append(Clause(any_of, (tokens,)))
    return seen


def counted_tags(
    connection: sqlite3.Connection, readers: Sequence[str] | None, newest: int
) -> dict[str, int]:
    """Return how many of the newest jobs that one of `readers` (None: anybody) may see have each tag."""
    values: tuple[Any, ...] = (newest,)
    rows = f"SELECT {ROW} FROM jobs ORDER BY created_at DESC, id DESC LIMIT ?"
    if readers is not None:
        rows = f"SELECT rowid FROM {SEARCH} WHERE {SEARCH} MATCH ? ORDER BY rowid DESC LIMIT ?"
        values = (f"_readers : ({_any(readers)})", newest)
    found = connection.execute(
        f"SELECT each.value, count(*) FROM jobs, json_each(jobs.tags) AS each "
        f"WHERE {ROW} IN ({rows}) GROUP BY each.value",
        values,
    )
    return {str(tag): count for tag, count in found}


def _by_row(connection: sqlite3.Connection, names: Sequence[str], keys: Sequence[Row]) -> list[Row]:
    statement = f"SELECT {quoted_names(names)} FROM jobs WHERE {ROW} = ?"
    rows = (connection.execute(statement, key).fetchone() for key in keys)
    return [row for row in rows if row is not None]


def _question(search: Search) -> str:
    """Return a search in FTS5's own language; all that comes from a user is a word or a token by
    now.
    """
    parts = [f'{{_words state}} : "{word}"' for word in search.words]
    parts += [f"_tags : ({_any(tag_tokens(tags))})" for tags in search.tags_any]
    if search.state is not None:
        parts += [f'state : "{word}"' for word in words_of(search.state)] or ['state : "-"']
    if search.readers is not None:
        parts.append(f"_readers : ({_any(search.readers)})")
    return " AND ".join(parts)


def _any(tokens: Sequence[str]) -> str:
    return " OR ".join(f'"{token}"' for token in tokens)
