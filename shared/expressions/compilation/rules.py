"""Operators before anything runs: what they may stand between, and what they give."""

from __future__ import annotations

from collections.abc import Callable

from shared.expressions.static_types import (
    BOOL,
    DURATION,
    FLOAT,
    INT,
    TEXT_TYPE,
    TIME,
    UNKNOWN,
    StaticType,
    list_of,
)

NUMBER_KINDS = ("int", "float")
"""The kinds of numbers."""


def _either(left: StaticType, right: StaticType, *kinds: str) -> bool:
    """Return whether both may be of the kinds, at least one of them being anything."""
    return (left.is_unknown and right.maybe(*kinds)) or (right.is_unknown and left.kind in kinds)


def _promoted(left: StaticType, right: StaticType) -> StaticType:
    return FLOAT if "float" in (left.kind, right.kind) else INT


def _arithmetic(
    pairs: dict[tuple[str, str], StaticType], *kinds: str
) -> Callable[[StaticType, StaticType], StaticType | None]:
    """Return the rule of an operator on numbers and on the given pairs of kinds."""

    def rule(left: StaticType, right: StaticType) -> StaticType | None:
        if left.is_number and right.is_number:
            return _promoted(left, right)
        known = pairs.get((left.kind, right.kind))
        if known is None and _either(left, right, *NUMBER_KINDS, *kinds):
            return UNKNOWN
        return known

    return rule


def _only(gives: StaticType, *kinds: str) -> Callable[[StaticType, StaticType], StaticType | None]:
    """Return the rule of an operator whose sides must both be of the kinds."""

    def rule(left: StaticType, right: StaticType) -> StaticType | None:
        both = left.kind in kinds and right.kind in kinds
        return gives if both or _either(left, right, *kinds) else None

    return rule


def _order(left: StaticType, right: StaticType) -> StaticType | None:
    same = left.kind == right.kind and left.kind in ("string", "time", "duration")
    numbers = left.is_number and right.is_number
    return (
        BOOL
        if same or numbers or _either(left, right, *NUMBER_KINDS, "string", "time", "duration")
        else None
    )


def _equality(left: StaticType, right: StaticType) -> StaticType | None:
    return BOOL if left.compares_with(right) else None


def _membership(left: StaticType, right: StaticType) -> StaticType | None:
    if right.kind == "map":
        return BOOL if left.is_unknown or left.fits(right.keys()) else None
    if right.kind == "list":
        return BOOL if left.compares_with(right.items()) else None
    if right.kind == "time":
        return BOOL if left.maybe("string") else None
    return BOOL if right.is_unknown or (left.is_unknown and right.kind == "string") else None


def _coalesced(left: StaticType, right: StaticType) -> StaticType | None:
    if "nil" in (left.kind, right.kind):
        return right if left.kind == "nil" else left
    return left if right.fits(left) else UNKNOWN


_D, _T = "duration", "time"
RULES: dict[str, Callable[[StaticType, StaticType], StaticType | None]] = {
    "+": _arithmetic(
        {("string", "string"): TEXT_TYPE, (_T, _D): TIME, (_D, _T): TIME, (_D, _D): DURATION},
        "string",
        _T,
        _D,
    ),
    "-": _arithmetic({(_T, _T): DURATION, (_T, _D): TIME, (_D, _D): DURATION}, _T, _D),
    "*": _arithmetic(
        {
            (_D, _D): DURATION,
            **{(a, b): DURATION for n in NUMBER_KINDS for a, b in ((n, _D), (_D, n))},
        },
        _D,
    ),
    **dict.fromkeys(["/", "**", "^"], _only(FLOAT, *NUMBER_KINDS)),
    "%": _only(INT, "int"),
    "..": _only(list_of(INT), "int"),
    **dict.fromkeys(["<", ">", "<=", ">="], _order),
    **dict.fromkeys(["==", "!="], _equality),
    **dict.fromkeys(["and", "&&", "or", "||"], _only(BOOL, "bool")),
    **dict.fromkeys(["contains", "startsWith", "endsWith", "matches"], _only(BOOL, "string")),
    "in": _membership,
    "??": _coalesced,
}
"""What each operator gives, or None where the sides do not fit it."""
