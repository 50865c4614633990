"""The query language of the engine: conditions and writes that every datastore adapter supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from shared.model.documents import Document, Intent, Micros

D = TypeVar("D", bound=Document)


class In(msgspec.Struct, frozen=True):
    """Matches any of `values`; None among them matches an absent field too."""

    values: tuple[Any, ...]


class Not(msgspec.Struct, frozen=True):
    """Matches anything but `value`; `Not(None)` matches a field that is present."""

    value: Any


class Below(msgspec.Struct, frozen=True):
    """Matches a present value less than `value`."""

    value: Any


class Above(msgspec.Struct, frozen=True):
    """Matches a present value greater than `value`."""

    value: Any


class Between(msgspec.Struct, frozen=True):
    """Matches a present value from `first` to `last`, with both."""

    first: Any
    last: Any


class Has(msgspec.Struct, frozen=True):
    """Matches a list that holds any of `values`, or a map that has any of them as a key."""

    values: tuple[Any, ...]


Where = Mapping[str, Any]
"""Python field name → the value it must have (None: absent), or one of the matchers above. All must match.

A dot reaches into a map or struct: `created_by.username`."""


class Change(msgspec.Struct, Generic[D], frozen=True, kw_only=True):
    """One compare-and-set on one document: where it still matches, these fields get these values."""

    kind: type[D]
    id: str
    where: Where = {}
    set: Mapping[str, Any] = {}
    """Field name (or `map_field.key`) → new value; None makes it absent."""
    add_then: tuple[Intent, ...] = ()
    """Intents to keep; one whose id is there already is left as it is."""
    drop_then: tuple[str, ...] = ()
    """Ids of intents that are done."""
    put_off: tuple[Intent, ...] = ()
    """Intents to stand in place of those that have their ids; one that is done by now stays so."""
    overdue_before: Micros | None = None
    """It matches only while an intent is due before this time."""
