"""Renders queries and writes as SQL, and reads documents from rows. Values are always bound; names are always ours."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from coordinator.store.codec import Codec, FieldShape, StoredField, fields_of, stored_key
from coordinator.store.search import (
    Condition,
    Target,
    conditions_of,
    job_readers,
    job_words,
    orders_of,
    tag_tokens,
    targets_of,
)
from shared.model.documents import Document, Intent, JobDocument, Micros
from shared.model.queries import Above, Below, Between, Has, In, Not, Where

MANY_VALUES = 200
"""From so many values on they are bound as one."""


class Clause(msgspec.Struct, frozen=True):
    """A piece of SQL and what is bound in it."""

    sql: str
    values: tuple[Any, ...] = ()

    @classmethod
    def joined(cls, separator: str, clauses: Sequence[Clause]) -> Clause:
        """Return clauses one after another."""
        return cls(
            separator.join(clause.sql for clause in clauses),
            tuple(value for clause in clauses for value in clause.values),
        )


@functools.lru_cache(maxsize=256)
def columns_of(kind: type[Document], without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the columns to read of a kind."""
    return tuple(name for name in fields_of(kind) if name not in without)


@functools.lru_cache(maxsize=256)
def columns(kind: type[Document], without: tuple[str, ...] = ()) -> str:
    """Return the same as SQL wants them."""
    return quoted_names(columns_of(kind, without))


def quoted_names(names: Sequence[str]) -> str:
    """Return names as SQL wants them."""
    return ", ".join(quoted_name(name) for name in names)


def marks(count: int) -> str:
    """Return so many places for values."""
    return ", ".join("?" * count)


def where_clause(kind: type[Document], where: Where) -> Clause:
    """Return the condition that all of `where` matches."""
    conditions = conditions_of(kind, where)
    if not conditions:
        return Clause("1")
    return Clause.joined(" AND ", [_condition(each) for each in conditions])


def order_clause(kind: type[Document], order: Sequence[str]) -> str:
    """Return an ORDER BY, or nothing."""
    if not order:
        return ""
    return " ORDER BY " + order_terms(kind, order)


def order_terms(kind: type[Document], order: Sequence[str]) -> str:
    """Return what to sort by, or to index."""
    return ", ".join(
        _place(each.target).sql + (" DESC" if each.falling else "")
        for each in orders_of(kind, order)
    )


def json_path(key: str) -> str:
    """Return the path of a stored key in a JSON column (`stored_key` leaves nothing to quote)."""
    return f'$."{key}"'


def _place(target: Target) -> Clause:
    column = quoted_name(target.field.name)
    if target.key is None:
        return Clause(column)
    path = json_path(target.key)
    if target.field.shape is FieldShape.STRUCT:  # a name of ours: only written out it fits an index
        return Clause(f"json_extract({column}, '{path}')")
    return Clause(f"json_extract({column}, ?)", (path,))


def _condition(condition: Condition) -> Clause:
    place, matcher = _place(condition.target), condition.matcher
    match matcher:
        case In():
            return _in(place, matcher.values, flag=condition.target.field.shape is FieldShape.FLAG)
        case Not(None):
            return Clause(f"{place.sql} IS NOT NULL", place.values)
        case Not():
            return Clause(f"{place.sql} IS NOT ?", (*place.values, matcher.value))
        case Below():
            return Clause(f"{place.sql} < ?", (*place.values, matcher.value))
        case Above():
            return Clause(f"{place.sql} > ?", (*place.values, matcher.value))
        case Between():
            bounds = (matcher.first, matcher.last)
            return Clause(f"{place.sql} BETWEEN ? AND ?", (*place.values, *bounds))
        case Has():
            return _has(condition.target, matcher.values)


def _in(place: Clause, values: Sequence[Any], *, flag: bool) -> Clause:
    present = [value for value in values if value is not None]
    parts: list[Clause] = []
    if len(present) < len(values):
        parts.append(Clause(f"{place.sql} IS NULL", place.values))
    if flag:  # written out: only so does SQLite see that a partial index fits
        parts += [Clause(f"{place.sql} = {int(value)}") for value in present]
    elif len(present) == 1:
        parts.append(Clause(f"{place.sql} = ?", (*place.values, present[0])))
    elif present:
        among = _among(present)
        parts.append(Clause(f"{place.sql} IN ({among.sql})", place.values + among.values))
    if not parts:
        return Clause("0")
    joined = Clause.joined(" OR ", parts)
    return Clause(f"({joined.sql})", joined.values) if len(parts) > 1 else joined


def _among(values: Sequence[Any]) -> Clause:
    if len(values) < MANY_VALUES:
        return Clause(marks(len(values)), tuple(values))
    return Clause("SELECT value FROM json_each(?)", (msgspec.json.encode(values).decode(),))


def _has(target: Target, values: Sequence[Any]) -> Clause:
    if not values:
        return Clause("0")
    is_map = target.field.shape is FieldShape.MAP
    wanted = [stored_key(value) for value in values] if is_map else list(values)
    among = _among(wanted)
    part = "key" if is_map else "value"
    column = quoted_name(target.field.name)
    return Clause(
        f"EXISTS (SELECT 1 FROM json_each({column}) AS each WHERE each.{part} IN ({among.sql}))",
        among.values,
    )


def set_clauses(kind: type[Document], set: Mapping[str, Any], codec: Codec) -> list[Clause]:
    """Return the assignments of a change. Raises `Unstorable`."""
    clauses: list[Clause] = []
    entries: dict[str, list[tuple[str, Any]]] = {}
    for target, value in targets_of(kind, set):
        if target.key is not None:
            entries.setdefault(target.field.name, []).append((target.key, value))
            continue
        stored = to_column(target.field, codec.encode_value(target.field, value))
        clauses.append(Clause(f"{quoted_name(target.field.name)} = ?", (stored,)))
    return clauses + [_entries(name, pairs) for name, pairs in entries.items()]


def _entries(name: str, pairs: Sequence[tuple[str, Any]]) -> Clause:
    """Return the assignment of entries of a map: some set, some (None) taken out."""
    clause = Clause(f"coalesce({quoted_name(name)}, '{{}}')")
    for key, value in pairs:
        path = json_path(key)
        if value is None:
            clause = Clause(f"json_remove({clause.sql}, ?)", (*clause.values, path))
        else:
            encoded = msgspec.json.encode(value).decode()
            clause = Clause(f"json_set({clause.sql}, ?, json(?))", (*clause.values, path, encoded))
    return Clause(f"{quoted_name(name)} = {clause.sql}", clause.values)


_D = TypeVar("_D", bound=Document)

ROW = "_row"
"""The rows' own key. Of jobs it rises with their age, so that a search can go by it."""
OVERDUE_COLUMN = "_overdue"
"""When the first of a document's intents is due."""
WORDS, READERS, TAGS = "_words", "_readers", "_tags"
"""Of jobs: what they are found by (`coordinator.store.search`)."""

AFFINITY: Mapping[FieldShape, str] = {
    FieldShape.TEXT: "TEXT",
    FieldShape.INTEGER: "INTEGER",
    FieldShape.NUMBER: "REAL",
    FieldShape.FLAG: "INTEGER",
    FieldShape.LIST: "TEXT",
    FieldShape.MAP: "TEXT",
    FieldShape.STRUCT: "TEXT",
    FieldShape.CLOSED: "BLOB",
    FieldShape.THEN: "BLOB",
}
AS_JSON = frozenset({FieldShape.LIST, FieldShape.MAP, FieldShape.STRUCT})


def quoted_name(name: str) -> str:
    """Return a name of ours for use in SQL."""
    return f'"{name}"'


@functools.cache
def column_types(kind: type[Document]) -> Mapping[str, str]:
    """Return a table's columns beside its row key, each with its type."""
    columns = {field.name: AFFINITY[field.shape] for field in fields_of(kind).values()}
    columns[OVERDUE_COLUMN] = "INTEGER"
    if kind is JobDocument:
        columns |= {WORDS: "TEXT", READERS: "TEXT", TAGS: "TEXT"}
    return columns


def overdue_of(then: Sequence[Intent]) -> Micros | None:
    """Return when the first intent is due."""
    return min((intent.at for intent in then), default=None)


def to_column(field: StoredField, value: Any) -> Any:
    """Return what rests as `value` in the form of its column."""
    if value is None:
        return None
    if field.shape in AS_JSON:
        return msgspec.json.encode(value).decode()
    if field.shape is FieldShape.THEN:
        return msgspec.msgpack.encode(value)
    return int(value) if field.shape is FieldShape.FLAG else value


def from_column(field: StoredField, value: Any) -> Any:
    """Return what rests in a column."""
    if value is None:
        return None
    if field.shape in AS_JSON:
        return msgspec.json.decode(value)
    return msgspec.msgpack.decode(value) if field.shape is FieldShape.THEN else value


class Rows:
    """Turns documents into rows and back."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def to_row(self, document: Document) -> dict[str, Any]:
        """Return a new document's columns. Raises `Unstorable`."""
        fields = fields_of(type(document))
        stored = self.codec.encode(document)
        row = {name: to_column(fields[name], value) for name, value in stored.items()}
        row[OVERDUE_COLUMN] = overdue_of(document.then)
        if isinstance(document, JobDocument):
            row[WORDS] = " ".join(job_words(document))
            row[READERS] = " ".join(job_readers(document))
            row[TAGS] = " ".join(tag_tokens(document.tags))
        return row

    def from_row(self, kind: type[_D], names: Sequence[str], row: Sequence[Any]) -> _D:
        """Return the document of which `row` holds the fields `names`."""
        fields = fields_of(kind)
        stored = {
            name: from_column(fields[name], value)
            for name, value in zip(names, row, strict=True)
            if value is not None
        }
        return self.codec.decode(kind, stored)
