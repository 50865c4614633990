"""Translates queries and writes to MongoDB's query language."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from bson.int64 import Int64

from coordinator.store.codec import Codec, FieldShape, fields_of, stored_key
from coordinator.store.search import (
    Condition,
    Search,
    Target,
    conditions_of,
    job_readers,
    job_words,
    orders_of,
    targets_of,
)
from shared.model.documents import Document, Intent, JobDocument
from shared.model.queries import Above, Below, Between, Change, Has, In, Not, Where
from shared.model.states import JobState

_D = TypeVar("_D", bound=Document)
Query = dict[str, Any]

ID_FIELD = "_id"
OVERDUE_FIELD = "_overdue"
"""When the first of a document's intents is due."""
WORDS, READERS = "_words", "_readers"
"""Of jobs: what they are found by (`coordinator.store.search`)."""
HIDDEN = (OVERDUE_FIELD, WORDS, READERS)
"""Fields that only questions need."""
NOTHING: Query = {ID_FIELD: {"$in": []}}
PLANNED = 8
"""Words, and sets of tags, of a question that are offered to the server's planner."""
PIECE = 1000
"""Characters of a regular expression at most: MongoDB has a limit."""
_STATES = frozenset(state.lower() for state in JobState)
"""Words that may be a job's state, which is not among its words because it changes."""


def stored_name(name: str, stored: str) -> str:
    """Return the name of a field in MongoDB."""
    return ID_FIELD if name == "id" else stored


@functools.cache
def names_of(kind: type[Document]) -> Mapping[str, str]:
    """Return names in MongoDB → Python names."""
    return {stored_name(name, field.stored): name for name, field in fields_of(kind).items()}


def to_mongo(codec: Codec, document: Document) -> dict[str, Any]:
    """Return a new document as MongoDB keeps it. Raises `Unstorable`."""
    fields = fields_of(type(document))
    made = {
        stored_name(name, fields[name].stored): value
        for name, value in codec.encode(document).items()
    }
    if document.then:
        made[OVERDUE_FIELD] = min(intent.at for intent in document.then)
    if isinstance(document, JobDocument):
        made[WORDS], made[READERS] = job_words(document), job_readers(document)
    return made


def from_mongo(codec: Codec, kind: type[_D], stored: Mapping[str, Any]) -> _D:
    """Return the document that MongoDB keeps as `stored`."""
    names = names_of(kind)
    return codec.decode(
        kind, {names[name]: _plain(value) for name, value in stored.items() if name in names}
    )


def _plain(value: Any) -> Any:
    """Return a value with Python's own numbers: the driver's 64-bit ones can't be encoded by anything else."""
    match value:
        case Int64():
            return int(value)
        case list():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items()}
    return value


@functools.lru_cache(maxsize=256)
def projection(kind: type[Document], without: tuple[str, ...] = ()) -> Mapping[str, int]:
    """Return what not to read."""
    fields = fields_of(kind)
    return dict.fromkeys((*HIDDEN, *(fields[name].stored for name in without)), 0)


def path_of(target: Target) -> str:
    """Return a target's path."""
    name = stored_name(target.field.name, target.field.stored)
    return name if target.key is None else f"{name}.{target.key}"


def all_of(queries: Sequence[Query]) -> Query:
    """Return the query that matches what all match."""
    if len(queries) == 1:
        return queries[0]
    return {"$and": list(queries)} if queries else {}


def query_of(kind: type[Document], where: Where) -> Query:
    """Return the query that all of `where` matches."""
    return all_of([_condition(each) for each in conditions_of(kind, where)])


def _condition(condition: Condition) -> Query:
    path, matcher = path_of(condition.target), condition.matcher
    match matcher:
        case In((value,)):
            return {path: {"$eq": value}}
        case In(values):
            return {path: {"$in": list(values)}}
        case Not(value):
            return {path: {"$ne": value}}
        case Below(value):
            return {path: {"$lt": value}}
        case Above(value):
            return {path: {"$gt": value}}
        case Between(first, last):
            return {path: {"$gte": first, "$lte": last}}
        case Has(values):
            return _has(condition.target, values)
    raise AssertionError(matcher)


def _has(target: Target, values: Sequence[Any]) -> Query:
    path = path_of(target)
    if target.field.shape is FieldShape.LIST:
        return {path: {"$in": list(values)}}
    if not values:
        return NOTHING
    return {"$or": [{f"{path}.{stored_key(value)}": {"$exists": True}} for value in values]}


def sort_of(kind: type[Document], order: Sequence[str]) -> list[tuple[str, int]]:
    """Return a sort."""
    return [(path_of(each.target), -1 if each.falling else 1) for each in orders_of(kind, order)]


def change_of(codec: Codec, change: Change[Any]) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Return the one update that does all of a change; None where there is nothing to do. Raises `Unstorable`."""
    return update_of(
        codec, change.kind, change.set, change.add_then, change.drop_then, change.put_off
    )


def update_of(
    codec: Codec,
    kind: type[Document],
    set: Mapping[str, Any],
    add_then: Sequence[Intent] = (),
    drop_then: Sequence[str] = (),
    put_off: Sequence[Intent] = (),
) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Return the one update that does all of it; None where there is nothing to do. Raises
    `Unstorable`.
    """
    present: dict[str, Any] = {}
    absent: list[str] = []
    for target, value in targets_of(kind, set):
        stored = value if target.key is not None else codec.encode_value(target.field, value)
        if stored is None:
            absent.append(path_of(target))
        else:
            present[path_of(target)] = stored
    if add_then or drop_then or put_off:
        once: dict[str, Intent] = {}
        for intent in add_then:
            once.setdefault(intent.id, intent)
        added, later = (
            codec.encode_value(fields_of(kind)["then"], intents) or []
            for intents in (once.values(), put_off)
        )
        return _pipeline(present, absent, added, list(drop_then), later)
    update: dict[str, Any] = {}
    if present:
        update["$set"] = present
    if absent:
        update["$unset"] = dict.fromkeys(absent, "")
    return update or None


def _pipeline(
    present: Mapping[str, Any],
    absent: list[str],
    added: list[Any],
    dropped: list[str],
    put_off: list[Any],
) -> list[dict[str, Any]]:
    """Return an update that sees the list of intents as it is: which are kept, which are new, which
    is due first.
    """
    there = {"$ifNull": ["$then", []]}
    kept_ids = {"$setDifference": [{"$ifNull": ["$then.id", []]}, _literal(dropped)]}
    kept = {"$filter": {"input": there, "cond": {"$in": ["$$this.id", kept_ids]}}}
    new = {
        "$filter": {"input": _literal(added), "cond": {"$not": [{"$in": ["$$this.id", kept_ids]}]}}
    }
    first = {path: _literal(value) for path, value in present.items()}
    first["then"] = {"$concatArrays": [_with_put_off(kept, put_off), new]}
    none_left = {"$eq": ["$then", []]}
    then = {"$cond": [none_left, "$$REMOVE", "$then"]}
    due = {"$cond": [none_left, "$$REMOVE", {"$min": "$then.at"}]}
    stages: list[dict[str, Any]] = [{"$set": first}, {"$set": {OVERDUE_FIELD: due, "then": then}}]
    return [*stages, {"$unset": absent}] if absent else stages


def _with_put_off(kept: Any, put_off: list[Any]) -> Any:
    """Return the kept intents, those that are put off in place of what has their ids."""
    if not put_off:
        return kept
    ids = _literal([intent["id"] for intent in put_off])
    later = {"$arrayElemAt": [_literal(put_off), {"$indexOfArray": [ids, "$$this.id"]}]}
    each = {"$cond": [{"$in": ["$$this.id", ids]}, later, "$$this"]}
    return {"$map": {"input": kept, "in": each}}


def _literal(value: Any) -> dict[str, Any]:
    """Return a value that a pipeline takes as it is, `$` or not."""
    return {"$literal": value}


def search_query(search: Search) -> Query:
    """Return the query for what a search finds."""
    queries = [_word(word) for word in search.words[:PLANNED]]
    queries += [{"tags": {"$in": list(tags)}} for tags in search.tags_any[:PLANNED]]
    if search.state is not None:
        queries.append({"state": search.state})
    if search.readers is not None:
        queries.append({READERS: {"$in": list(search.readers)}})
    if search.where:
        queries.append(query_of(JobDocument, search.where))
    return all_of(queries + _unplanned(search))


def _unplanned(search: Search) -> list[Query]:
    """Return conditions for the rest of a long question, in a form for which no plans are made.

    The server weighs every condition that an index could serve against every other: thousands of
    them would keep it busy for minutes."""
    groups = search.tags_any[PLANNED:]
    single = [group[0] for group in groups if len(group) == 1]
    words = list(search.words[PLANNED:])
    checks = [_subset(single, "$tags")] if single else []
    if words:
        checks.append(_subset(words, {"$concatArrays": [f"${WORDS}", [{"$toLower": "$state"}]]}))
    checks += [_some(list(group), "$tags") for group in groups if len(group) > 1]
    return [{"$expr": {"$and": checks}}] if checks else []


def _subset(values: list[str], of: Any) -> dict[str, Any]:
    return {"$setIsSubset": [_literal(values), of]}


def _some(values: list[str], of: Any) -> dict[str, Any]:
    return {"$gt": [{"$size": {"$setIntersection": [of, _literal(values)]}}, 0]}


def _word(word: str) -> Query:
    if word in _STATES:
        return {"$or": [{WORDS: word}, {"state": word.upper()}]}
    return {WORDS: word}


def holds_terms(name: str, terms: Sequence[str]) -> list[Query]:
    """Return queries for a text that has all of `terms`, in any case."""
    pieces = [term[at : at + PIECE] for term in terms for at in range(0, len(term), PIECE)]
    return [
        {name: {"$regex": re.escape(piece).replace("\x00", r"\x00"), "$options": "i"}}
        for piece in pieces
    ]
