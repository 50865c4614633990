"""Creates and migrates the tables at the start.

Tables, columns and indexes follow `DOCUMENTS` and `INDEXES`: what is missing is added, an index
that is no longer wanted is dropped; a column of an older version stays, unread. What that can't do
would be a step of its own from one `SQLITE_SCHEMA_VERSION` to the next. A file of a newer version is
refused.
"""

from __future__ import annotations

import hashlib
import sqlite3

from coordinator.store.indexes import INDEXES, Index
from coordinator.store.sqlite.sql import (
    OVERDUE_COLUMN,
    READERS,
    ROW,
    TAGS,
    WORDS,
    column_types,
    order_terms,
    quoted_name,
)
from shared.errors import StoreMisconfigured
from shared.model.documents import DOCUMENTS, Document, JobDocument

SQLITE_SCHEMA_VERSION = 1
APPLICATION_ID = 0x4861756C
"""Marks a file as ours (`PRAGMA application_id`)."""
SEARCH = "jobs_search"
SEARCHED = (WORDS, READERS, TAGS, "state")


def prepare_schema(connection: sqlite3.Connection) -> None:
    """Make or move on the schema. Raises `StoreMisconfigured` for a file that is not ours or newer
    than we are.
    """
    _recognise(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
        for kind in DOCUMENTS:
            _make_table(connection, kind)
        _make_indexes(connection)
        _make_search(connection)
        _make_job_count(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SQLITE_SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _recognise(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise StoreMisconfigured(
            "the datastore's file is a SQLite database that belongs to another program"
        )
    if version > SQLITE_SCHEMA_VERSION:
        raise StoreMisconfigured(
            f"the datastore has schema version {version}, but this version of Haulier supports only "
            f"{SQLITE_SCHEMA_VERSION}: it was written by a newer version; use that version"
        )


def _make_table(connection: sqlite3.Connection, kind: type[Document]) -> None:
    table, columns = quoted_name(kind.collection), column_types(kind)
    there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    if not there:
        rest = ", ".join(
            f"{quoted_name(name)} {type_}" for name, type_ in columns.items() if name != "id"
        )
        connection.execute(
            f"CREATE TABLE {table} ({ROW} INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, {rest})"
        )
        return
    for name, type_ in columns.items():
        if name not in there:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted_name(name)} {type_}")


def _make_indexes(connection: sqlite3.Connection) -> None:
    wanted = dict(map(_index, INDEXES)) | dict(map(_overdue_index, DOCUMENTS))
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB 'ix_*'"
    )
    there = {name for (name,) in found}
    for name in there - wanted.keys():
        connection.execute(f"DROP INDEX {quoted_name(name)}")
    for name in wanted.keys() - there:
        connection.execute(wanted[name])


def _index(index: Index) -> tuple[str, str]:
    columns = order_terms(index.kind, index.fields)
    conditions = [f"{quoted_name(name)} = {_literal(value)}" for name, value in index.where]
    if index.sparse:
        conditions.append(f"{order_terms(index.kind, index.fields[:1])} IS NOT NULL")
    return _named(index.kind, columns, " AND ".join(conditions), unique=index.unique)


def _overdue_index(kind: type[Document]) -> tuple[str, str]:
    return _named(kind, OVERDUE_COLUMN, f"{OVERDUE_COLUMN} IS NOT NULL", unique=False)


def _named(kind: type[Document], columns: str, where: str, *, unique: bool) -> tuple[str, str]:
    table = kind.collection
    what = f"ON {quoted_name(table)} ({columns})" + (f" WHERE {where}" if where else "")
    name = f"ix_{table}_{hashlib.sha256(f'{unique} {what}'.encode()).hexdigest()[:12]}"
    return name, f"CREATE {'UNIQUE ' if unique else ''}INDEX {quoted_name(name)} {what}"


def _literal(value: object) -> str:
    if isinstance(value, bool | int):
        return str(int(value))
    return "'" + str(value).replace("'", "''") + "'"


def _make_search(connection: sqlite3.Connection) -> None:
    """Make a full-text index over words that are already split (so `ascii`, which keeps each whole),
    kept by triggers.
    """
    jobs, columns = JobDocument.collection, ", ".join(SEARCHED)
    connection.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {SEARCH} USING fts5({columns}, content={jobs}, "
        f"content_rowid={ROW}, tokenize=ascii, detail=column)"
    )
    remove = _search_row("old", f"{SEARCH}, ", "'delete', ")
    add = _search_row("new", "", "")
    for event, body in (
        ("INSERT", add),
        ("DELETE", remove),
        (f"UPDATE OF {columns}", f"{remove} {add}"),
    ):
        name = f"{SEARCH}_{event.split()[0].lower()}"
        connection.execute(
            f"CREATE TRIGGER IF NOT EXISTS {name} AFTER {event} ON {jobs} BEGIN {body} END"
        )


def _search_row(side: str, column: str, command: str) -> str:
    values = ", ".join(f"{side}.{name}" for name in SEARCHED)
    return (
        f"INSERT INTO {SEARCH}({column}rowid, {', '.join(SEARCHED)}) "
        f"VALUES ({command}{side}.{ROW}, {values});"
    )


def _make_job_count(connection: sqlite3.Connection) -> None:
    """Make the count of jobs, kept by triggers: counting a million takes too long for a listing."""
    jobs = JobDocument.collection
    connection.execute(
        f"INSERT INTO meta SELECT 'jobs', (SELECT count(*) FROM {jobs}) "
        "WHERE NOT EXISTS (SELECT 1 FROM meta WHERE key = 'jobs')"
    )
    for event, step in (("INSERT", "+ 1"), ("DELETE", "- 1")):
        connection.execute(
            f"CREATE TRIGGER IF NOT EXISTS jobs_count_{event.lower()} AFTER {event} ON {jobs} "
            f"BEGIN UPDATE meta SET value = CAST(value AS INTEGER) {step} WHERE key = 'jobs'; END"
        )
