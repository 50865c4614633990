"""What the functions of the language take and give, as far as it is known before they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shared.expressions.static_types import (
    ANY,
    BOOL,
    DURATION,
    FLOAT,
    INT,
    INT_LIST,
    LIST,
    TABLE,
    TEXT_LIST,
    TEXT_TYPE,
    TIME,
    StaticType,
)

Signature = Callable[[str, Sequence[StaticType]], StaticType]
"""From a function's name and its arguments to what it gives. Raises ValueError with the reason why it
cannot be called so."""

_LOCATION = StaticType("location")


def _misfit(name: str, given: Sequence[StaticType], wanted: Sequence[StaticType]) -> str | None:
    if len(given) != len(wanted):
        few = "not enough" if len(given) < len(wanted) else "too many"
        return f"{few} arguments to call {name}"
    for shape, want in zip(given, wanted, strict=True):
        if shape.is_unknown or shape.fits(want):
            continue
        return f"cannot use {shape} as argument (type {want}) to call {name}"
    return None


def overloads(*forms: Sequence[StaticType], gives: StaticType) -> Signature:
    """Return a function that takes what any one of the forms lists."""

    def check(name: str, given: Sequence[StaticType]) -> StaticType:
        reason: str | None = None
        for form in forms:
            reason = _misfit(name, given, form)
            if reason is None:
                return gives
        raise ValueError(reason)

    return check


def takes(*wanted: StaticType, gives: StaticType) -> Signature:
    """Return a function with one list of arguments."""
    return overloads(wanted, gives=gives)


def _count(name: str, given: Sequence[StaticType], *allowed: int) -> None:
    if len(given) not in allowed:
        wanted = " or ".join(str(count) for count in allowed)
        raise ValueError(f"{name} takes {wanted} arguments, not {len(given)}")


def _kinds(name: str, shape: StaticType, *kinds: str) -> None:
    if not shape.maybe(*kinds):
        raise ValueError(f"invalid argument for {name} (type {shape})")


def _of_kinds(*kinds: str, gives: StaticType | None = None) -> Signature:
    """Return a function of one argument of some kinds; it gives the same kind where `gives` says nothing."""

    def check(name: str, given: Sequence[StaticType]) -> StaticType:
        _count(name, given, 1)
        _kinds(name, given[0], *kinds)
        return _bare(given[0]) if gives is None else gives

    return check


def _bare(shape: StaticType) -> StaticType:
    """Return the shape without what is known of its elements, which the original forgets in calls."""
    if shape.is_unknown:
        return ANY
    return StaticType(shape.kind, shape.form)


_NUMBERS = ("int", "float", "duration", "month", "weekday")


def _aggregate(name: str, given: Sequence[StaticType]) -> StaticType:
    if not given:
        raise ValueError(f"not enough arguments to call {name}")
    for shape in given:
        if shape.maybe("list"):
            return ANY
        _kinds(name, shape, *_NUMBERS)
    return given[0]


def _element(name: str, given: Sequence[StaticType]) -> StaticType:
    _count(name, given, 1)
    _kinds(name, given[0], "list")
    return ANY if given[0].is_unknown else _bare(given[0]).items()


def _take(name: str, given: Sequence[StaticType]) -> StaticType:
    _count(name, given, 2)
    _kinds(name, given[0], "list")
    _kinds(name, given[1], "int", "duration", "month", "weekday")
    return _bare(given[0])


def _concat(name: str, given: Sequence[StaticType]) -> StaticType:
    if not given:
        raise ValueError(f"{name} takes at least 1 argument")
    for shape in given:
        _kinds(name, shape, "list")
    return LIST


def _now(name: str, given: Sequence[StaticType]) -> StaticType:
    if given and not (len(given) == 1 and given[0].kind == "location"):
        raise ValueError(f"{name} takes no arguments but a time zone")
    return TIME


def _date(name: str, given: Sequence[StaticType]) -> StaticType:
    placed = bool(given) and given[0].kind == "location"
    if not given or len(given) - placed > 3:
        raise ValueError(
            f"{name} takes a text, a layout and a time zone, not {len(given)} arguments"
        )
    return TIME


def _get(name: str, given: Sequence[StaticType]) -> StaticType:
    _count(name, given, 2)
    base, key = given
    if base.is_unknown:
        return StaticType("unknown")
    if base.kind == "list":
        _kinds(name, key, "int")
    elif base.kind == "map":
        if not key.is_unknown and not key.fits(base.keys()):
            raise ValueError(f"cannot use {key} to get an element from {base}")
    else:
        raise ValueError(f"{base} does not support indexing")
    return base.items()


def _random(name: str, given: Sequence[StaticType]) -> StaticType:
    _count(name, given, 0, 1)
    if given:
        _kinds(name, given[0], "int", "float")
    return INT


_ON_TEXTS = takes(TEXT_TYPE, TEXT_TYPE, gives=BOOL)
_BITS = takes(INT, INT, gives=INT)

SIGNATURES: dict[str, Signature] = {
    "len": _of_kinds("list", "map", "string", gives=INT),
    "type": takes(ANY, gives=TEXT_TYPE),
    "abs": _of_kinds(*_NUMBERS),
    **dict.fromkeys(["ceil", "floor", "round"], _of_kinds(*_NUMBERS, gives=FLOAT)),
    "int": _of_kinds(*_NUMBERS, "string", gives=INT),
    "float": _of_kinds(*_NUMBERS, "string", gives=FLOAT),
    "string": takes(ANY, gives=TEXT_TYPE),
    "trim": overloads((TEXT_TYPE,), (TEXT_TYPE, TEXT_TYPE), gives=TEXT_TYPE),
    **dict.fromkeys(
        ["trimPrefix", "trimSuffix"],
        overloads((TEXT_TYPE, TEXT_TYPE), (TEXT_TYPE,), gives=TEXT_TYPE),
    ),
    **dict.fromkeys(
        ["upper", "lower", "toBase64", "fromBase64"], takes(TEXT_TYPE, gives=TEXT_TYPE)
    ),
    **dict.fromkeys(
        ["split", "splitAfter"],
        overloads((TEXT_TYPE, TEXT_TYPE), (TEXT_TYPE, TEXT_TYPE, INT), gives=TEXT_LIST),
    ),
    "replace": overloads(
        (TEXT_TYPE, TEXT_TYPE, TEXT_TYPE, INT), (TEXT_TYPE, TEXT_TYPE, TEXT_TYPE), gives=TEXT_TYPE
    ),
    "repeat": takes(TEXT_TYPE, INT, gives=TEXT_TYPE),
    "join": overloads(
        (TEXT_LIST, TEXT_TYPE), (LIST, TEXT_TYPE), (LIST,), (TEXT_LIST,), gives=TEXT_TYPE
    ),
    **dict.fromkeys(["indexOf", "lastIndexOf"], takes(TEXT_TYPE, TEXT_TYPE, gives=INT)),
    **dict.fromkeys(["hasPrefix", "hasSuffix"], _ON_TEXTS),
    **dict.fromkeys(["max", "min", "mean", "median"], _aggregate),
    "toJSON": takes(ANY, gives=TEXT_TYPE),
    "fromJSON": takes(TEXT_TYPE, gives=ANY),
    "now": _now,
    "duration": takes(TEXT_TYPE, gives=DURATION),
    "date": _date,
    "timezone": takes(TEXT_TYPE, gives=_LOCATION),
    **dict.fromkeys(["first", "last"], _element),
    "get": _get,
    "take": _take,
    **dict.fromkeys(["keys", "values", "toPairs"], _of_kinds("map", gives=LIST)),
    "fromPairs": _of_kinds("list", gives=TABLE),
    **dict.fromkeys(["reverse", "uniq", "flatten"], _of_kinds("list", gives=LIST)),
    "concat": _concat,
    "sort": overloads(
        *((form, TEXT_TYPE) for form in (LIST, INT_LIST, TEXT_LIST)),
        *((form,) for form in (LIST, TEXT_LIST, INT_LIST)),
        gives=LIST,
    ),
    **dict.fromkeys(["bitand", "bitor", "bitxor", "bitnand", "bitshl", "bitshr", "bitushr"], _BITS),
    "bitnot": takes(INT, gives=INT),
}
"""Of each function of the language that is no loop."""
EXTRAS: dict[str, Signature] = {
    "randomInt": _random,
    "sequence": takes(INT, INT, gives=INT_LIST),
}
"""Of the functions that the job language adds; the scope may give their names to something else."""
