"""What `Where`, `Change.set` and `order` speak of, looked up in a kind's fields, for every adapter
to render.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.store.codec import FieldShape, StoredField, fields_of, stored_key
from shared.model.documents import Document
from shared.model.queries import Above, Below, Has, In, Not, Where

Matcher = In | Not | Below | Above | Has


class Target(msgspec.Struct, frozen=True):
    """A field, or with `key` an entry of the map or struct in it, by its stored name."""

    field: StoredField
    key: str | None = None


class Condition(msgspec.Struct, frozen=True):
    """A target and what it must match; a plain value is an `In` of one."""

    target: Target
    matcher: Matcher


class Order(msgspec.Struct, frozen=True):
    """A field to sort by."""

    field: StoredField
    falling: bool


@functools.lru_cache(maxsize=4096)
def target_of(kind: type[Document], path: str) -> Target:
    """Return what `path` names. `ValueError` where a kind has nothing of that name."""
    name, dot, key = path.partition(".")
    field = fields_of(kind).get(name)
    if field is None:
        raise ValueError(f"{kind.noun()} has no field {name!r}")
    if not dot:
        return Target(field)
    if field.shape is FieldShape.MAP:
        return Target(field, stored_key(key))
    if key not in field.keys:
        raise ValueError(f"{kind.noun()}.{name} has no {key!r} that a store could see")
    return Target(field, field.keys[key])


def conditions_of(kind: type[Document], where: Where) -> list[Condition]:
    """Return what must match. `ValueError` where a store could not tell."""
    return [_condition(kind, path, wanted) for path, wanted in where.items()]


def _condition(kind: type[Document], path: str, wanted: Any) -> Condition:
    target = target_of(kind, path)
    matcher = wanted if isinstance(wanted, Matcher) else In((wanted,))
    closed = target.field.shape in (FieldShape.CLOSED, FieldShape.THEN)
    if closed and matcher not in (In((None,)), Not(None)):
        raise ValueError(f"{kind.noun()}.{path} is closed: only its presence can be matched")
    if isinstance(matcher, Has) and target.field.shape not in (FieldShape.LIST, FieldShape.MAP):
        raise ValueError(f"{kind.noun()}.{path} is no list or map")
    return Condition(target, matcher)


def orders_of(kind: type[Document], order: Sequence[str]) -> list[Order]:
    """Return what to sort by; `-` before a name makes it fall."""
    return [
        Order(target_of(kind, name.removeprefix("-")).field, name.startswith("-")) for name in order
    ]


FIXED: Mapping[str, tuple[str, ...]] = {
    "jobs": ("name", "description", "tags", "permissions", "created_at")
}
"""Fields by which documents are found as they were when stored: no change may touch them."""


def targets_of(kind: type[Document], set: Mapping[str, Any]) -> list[tuple[Target, Any]]:
    """Return what a change sets. `ValueError` where it may not be changed."""
    for path in set:
        if path.partition(".")[0] in ("id", "then", *FIXED.get(kind.collection, ())):
            raise ValueError(f"{kind.noun()}.{path} can not be set")
    return [(target_of(kind, path), value) for path, value in set.items()]
