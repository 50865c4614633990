"""What is known of a value before anything runs: enough to refuse `trim(5)` when a job is submitted.

The rules are those of the original's checker, since what it knows also decides how some operators
behave (an `==` of what must be whole numbers refuses nil, for one).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from shared.expressions.values.durations import Duration
from shared.expressions.values.kinds import Function, Ints, Month, Strings, Table, Texts, Weekday
from shared.expressions.values.moments import Time
from shared.expressions.values.zones import Fixed, Region

_Kind = Literal[
    "unknown", "any", "nil", "bool", "int", "float", "string", "list", "map",
    "time", "duration", "month", "weekday", "location", "func",
]  # fmt: skip
"""`any` is what came out of a list or map of anything; `unknown` is not even that much known."""


class StaticType(msgspec.Struct, frozen=True):
    """A kind, and for lists and maps what they hold.

    `form` tells kinds of lists (`any`, `string`, `int`) and of maps (`any`, `texts`, `table`,
    `groups`) apart; `element` is what a list is known to hold beyond its form; `name` is the name of
    a function.
    """

    kind: _Kind
    form: str = ""
    element: StaticType | None = None
    name: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether anything may come."""
        return self.kind in ("unknown", "any")

    @property
    def is_number(self) -> bool:
        """Whether it must be a number."""
        return self.kind in ("int", "float")

    def maybe(self, *kinds: str) -> bool:
        """Return whether it may be one of the kinds."""
        return self.is_unknown or self.kind in kinds

    def items(self) -> StaticType:
        """Return what its elements are."""
        if self.kind == "map":
            return {"texts": TEXT_TYPE, "groups": LIST}.get(self.form, ANY)
        if self.element is not None:
            return self.element
        return {"string": TEXT_TYPE, "int": INT}.get(self.form, ANY)

    def keys(self) -> StaticType:
        """Return what the keys of a map are."""
        return ANY if self.form in ("table", "groups") else TEXT_TYPE

    def fits(self, wanted: StaticType) -> bool:
        """Return whether a value of it may stand where `wanted` is asked for, in Go's sense."""
        if self.kind == "nil":
            return wanted.kind in ("any", "map", "list", "location", "func")
        if self.kind == "unknown" or wanted.kind == "unknown":
            return False
        return wanted.kind == "any" or (self.kind == wanted.kind and self.form == wanted.form)

    def compares_with(self, other: StaticType) -> bool:
        """Return whether `==` of the two makes sense."""
        if self.is_unknown or other.is_unknown or "nil" in (self.kind, other.kind):
            return True
        if (self.is_number and other.is_number) or self.kind == other.kind == "list":
            return True
        return self.fits(other)

    def __str__(self) -> str:
        return {"unknown": "anything", "any": "anything", "list": "array"}.get(self.kind, self.kind)


UNKNOWN = StaticType("unknown")
ANY = StaticType("any")
NIL = StaticType("nil")
BOOL = StaticType("bool")
INT = StaticType("int")
FLOAT = StaticType("float")
TEXT_TYPE = StaticType("string")
TIME = StaticType("time")
DURATION = StaticType("duration")
LIST = StaticType("list", "any")
TEXT_LIST = StaticType("list", "string")
INT_LIST = StaticType("list", "int")
MAP = StaticType("map", "any")
TEXTS = StaticType("map", "texts")
TABLE = StaticType("map", "table")
GROUPS = StaticType("map", "groups")

_SHAPES: dict[type, StaticType] = {
    type(None): NIL,
    bool: BOOL,
    int: INT,
    float: FLOAT,
    str: TEXT_TYPE,
    list: LIST,
    Strings: TEXT_LIST,
    Ints: INT_LIST,
    dict: MAP,
    Texts: TEXTS,
    Time: TIME,
    Duration: DURATION,
    Month: StaticType("month"),
    Weekday: StaticType("weekday"),
    Fixed: StaticType("location"),
    Region: StaticType("location"),
}


def list_of(element: StaticType) -> StaticType:
    """Return a list of anything that is known to hold just that."""
    return StaticType("list", "any", element)


def shape_of(value: object) -> StaticType:
    """Return what is known of a value of the scope: its kind, and nothing of what it holds."""
    known = _SHAPES.get(type(value))
    if known is not None:
        return known
    if isinstance(value, Function):
        return StaticType("func", name=value.name)
    if isinstance(value, Table):
        return GROUPS if value.groups else TABLE
    if isinstance(value, list):
        return LIST
    return MAP if isinstance(value, Mapping) else UNKNOWN
