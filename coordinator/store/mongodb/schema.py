"""Creates the collections and indexes at the start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel

from coordinator.store.indexes import INDEXES, Index
from coordinator.store.mongodb.queries import (
    ID_FIELD,
    OVERDUE_FIELD,
    READERS,
    WORDS,
    path_of,
    sort_of,
)
from coordinator.store.search import target_of
from shared.model.documents import DOCUMENTS, Document, JobDocument

MONGODB_SCHEMA_VERSION = 1
META = "meta"
NEWEST_FIRST = [("createdAt", DESCENDING), (ID_FIELD, DESCENDING)]
"""How searches go through jobs."""


def indexes_of(kind: type[Document]) -> list[IndexModel]:
    """Return the indexes of a kind. Their names follow from what they are: a changed one is another
    one.
    """
    made = [_index(index) for index in INDEXES if index.kind is kind]
    made.append(_model([(OVERDUE_FIELD, ASCENDING)], partial=_there(OVERDUE_FIELD)))
    if kind is JobDocument:
        made += [
            _model([(name, ASCENDING), *NEWEST_FIRST], partial={})
            for name in (WORDS, READERS, "tags")
        ]
    return made


def _there(name: str) -> dict[str, Any]:
    return {name: {"$exists": True}}


def collections() -> Mapping[str, list[IndexModel]]:
    """Return collections and their indexes."""
    return {kind.collection: indexes_of(kind) for kind in DOCUMENTS}


def _index(index: Index) -> IndexModel:
    keys = sort_of(index.kind, index.fields)
    partial: dict[str, Any] = {
        path_of(target_of(index.kind, name)): value for name, value in index.where
    }
    present = keys if index.unique else keys[: int(index.sparse)]
    for name, _ in present:
        partial |= _there(name)
    return _model(keys, partial=partial, unique=index.unique)


def _model(
    keys: list[tuple[str, int]], *, partial: dict[str, Any], unique: bool = False
) -> IndexModel:
    said = repr((keys, partial, unique)).encode()
    options: dict[str, Any] = {"name": f"haulier_{hashlib.sha256(said).hexdigest()[:12]}"}
    if partial:
        options["partialFilterExpression"] = partial
    if unique:
        options["unique"] = True
    return IndexModel(keys, **options)
