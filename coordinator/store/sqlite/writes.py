"""The writes that the writer thread makes, several in one transaction if possible."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.store.codec import Codec, fields_of, refuse_oversize
from coordinator.store.port import SlotTaken
from coordinator.store.sqlite.sql import (
    OVERDUE_COLUMN,
    ROW,
    Clause,
    columns,
    from_column,
    marks,
    order_clause,
    overdue_of,
    quoted_name,
    quoted_names,
    set_clauses,
    to_column,
    where_clause,
)
from shared.model.documents import Document, Intent, JobDocument, Micros
from shared.model.queries import Change, Where

Columns = tuple[Any, ...]

PER_MICROSECOND = 1024
"""Row keys of jobs made within one microsecond."""
LATEST = 2**63 // PER_MICROSECOND - 1
_WINDOW = 10_000_000 * PER_MICROSECOND
"""Row keys of ten seconds: so far may a job go from its own microsecond where that is full."""


def note_ping(connection: sqlite3.Connection, at: Micros) -> None:
    """Note in a row of its own when the datastore was asked whether it works."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('ping', ?)", (str(at),))


def insert_row(
    connection: sqlite3.Connection, kind: type[Document], row: Mapping[str, Any]
) -> bool:
    """Insert a row; False where its id is taken. Raises `SlotTaken`."""
    try:
        _insert(connection, kind, row, "")
    except sqlite3.IntegrityError:
        if _exists(connection, kind, row["id"]):
            return False
        raise SlotTaken(f"{kind.noun()} {row['id']}: its slot is taken") from None
    return True


def insert_rows(
    connection: sqlite3.Connection, rows: Sequence[tuple[type[Document], Mapping[str, Any]]]
) -> int:
    """Insert those rows that no unique index refuses; return how many."""
    return sum(_insert(connection, kind, row, "OR IGNORE") for kind, row in rows)


def _insert(
    connection: sqlite3.Connection, kind: type[Document], row: Mapping[str, Any], conflict: str
) -> int:
    names, values = list(row), list(row.values())
    if kind is JobDocument:
        names.append(ROW)
        values.append(_job_row(connection, row["created_at"]))
    into = f"{quoted_name(kind.collection)} ({quoted_names(names)})"
    statement = f"INSERT {conflict} INTO {into} VALUES ({marks(len(names))})"
    return connection.execute(statement, values).rowcount


def _exists(connection: sqlite3.Connection, kind: type[Document], id: str) -> bool:
    found = connection.execute(f"SELECT 1 FROM {quoted_name(kind.collection)} WHERE id = ?", (id,))
    return found.fetchone() is not None


def _job_row(connection: sqlite3.Connection, created_at: int) -> int:
    """Return a free row key that puts a job among the others by its age."""
    first = min(created_at, LATEST) * PER_MICROSECOND
    for width in (PER_MICROSECOND, _WINDOW):
        (last,) = connection.execute(
            f"SELECT max({ROW}) FROM jobs WHERE {ROW} >= ? AND {ROW} < ?", (first, first + width)
        ).fetchone()
        if last is None or last + 1 < first + width:
            return first if last is None else int(last) + 1
    raise OverflowError("too many jobs of the same moment")


class Changer:
    """Compare-and-sets, rendered where the caller is and made on the writer's thread."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def prepared(self, change: Change[Any]) -> PreparedChange:
        """Return a change that is ready to be made. Raises `Unstorable`, and `ValueError` for a
        wrong name.
        """
        return PreparedChange(
            change.kind,
            Clause.joined(" AND ", _conditions(change)),
            "",
            tuple(set_clauses(change.kind, change.set, self._codec)),
            change.add_then,
            change.drop_then,
            change.put_off,
            self._codec,
        )

    def prepared_first(
        self,
        kind: type[Document],
        where: Where,
        order: Sequence[str],
        set: Mapping[str, Any],
        add_then: tuple[Intent, ...],
    ) -> PreparedChange:
        """Return a change of the first document of an order."""
        return PreparedChange(
            kind,
            where_clause(kind, where),
            order_clause(kind, order),
            tuple(set_clauses(kind, set, self._codec)),
            add_then,
            (),
            (),
            self._codec,
        )


class PreparedChange(msgspec.Struct, frozen=True):
    """A compare-and-set on the first row of `order` that matches `where`."""

    kind: type[Document]
    where: Clause
    order: str
    sets: tuple[Clause, ...]
    add_then: tuple[Intent, ...]
    drop_then: tuple[str, ...]
    put_off: tuple[Intent, ...]
    codec: Codec

    def apply(self, connection: sqlite3.Connection) -> Columns | None:
        """Make it; return the row as it is after, or None where nothing matched or a unique index
        refused.
        """
        found = self._found(connection)
        if found is None:
            return None
        sets = [*self.sets, *self._then(found[1])]
        table, names = quoted_name(self.kind.collection), columns(self.kind)
        if not sets:
            statement = f"SELECT {names} FROM {table} WHERE {ROW} = ?"
            return _one(connection, statement, (found[0],))
        assigned = Clause.joined(", ", sets)
        statement = f"UPDATE {table} SET {assigned.sql} WHERE {ROW} = ? RETURNING {names}"
        try:
            row = _one(connection, statement, (*assigned.values, found[0]))
        except sqlite3.IntegrityError:
            return None
        assert row is not None
        refuse_oversize(f"{self.kind.noun()} {row[0]}", row)
        return row

    def _found(self, connection: sqlite3.Connection) -> Columns | None:
        statement = (
            f'SELECT {ROW}, "then" FROM {quoted_name(self.kind.collection)} '
            f"WHERE {self.where.sql}{self.order} LIMIT 1"
        )
        return _one(connection, statement, self.where.values)

    def _then(self, stored: bytes | None) -> list[Clause]:
        if not (self.add_then or self.drop_then or self.put_off):
            return []
        field = fields_of(self.kind)["then"]
        there = [] if stored is None else self.codec.decode_value(field, from_column(field, stored))
        put_off = {intent.id: intent for intent in self.put_off}
        kept = [
            put_off.get(intent.id, intent) for intent in there if intent.id not in self.drop_then
        ]
        ids = {intent.id for intent in kept}
        for intent in self.add_then:
            if intent.id not in ids:
                kept.append(intent)
                ids.add(intent.id)
        value = to_column(field, self.codec.encode_value(field, kept))
        return [
            Clause('"then" = ?', (value,)),
            Clause(f"{OVERDUE_COLUMN} = ?", (overdue_of(kept),)),
        ]


def _conditions(change: Change[Any]) -> list[Clause]:
    conditions = [Clause("id = ?", (change.id,)), where_clause(change.kind, change.where)]
    if change.overdue_before is not None:
        conditions.append(Clause(f"{OVERDUE_COLUMN} < ?", (change.overdue_before,)))
    return conditions


def apply_all(connection: sqlite3.Connection, changes: Sequence[PreparedChange]) -> int:
    """Make each change for itself; return how many matched."""
    return sum(change.apply(connection) is not None for change in changes)


def delete_rows(
    connection: sqlite3.Connection, kind: type[Document], where: Clause, limit: int
) -> int:
    """Delete rows that match, at most `limit`; return how many."""
    table = quoted_name(kind.collection)
    return connection.execute(
        f"DELETE FROM {table} WHERE {ROW} IN (SELECT {ROW} FROM {table} WHERE {where.sql} LIMIT ?)",
        (*where.values, limit),
    ).rowcount


def _one(connection: sqlite3.Connection, statement: str, values: Sequence[Any]) -> Columns | None:
    rows: list[Columns] = connection.execute(statement, values).fetchall()
    return rows[0] if rows else None
