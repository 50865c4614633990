"""Documents as rows: a column per field, and those that only this adapter adds."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from coordinator.store.codec import Codec, FieldShape, StoredField, fields_of
from coordinator.store.search import job_readers, job_words, tag_tokens
from shared.model.documents import Document, Intent, JobDocument, Micros

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
