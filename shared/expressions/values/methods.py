"""The methods of dates, durations, zones, months and weekdays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from shared.expressions.errors import ExpressionError
from shared.expressions.values.durations import DURATION_SECOND, Duration
from shared.expressions.values.formatting import format_value
from shared.expressions.values.kinds import Function, Month, Weekday, type_name
from shared.expressions.values.layouts import format_time
from shared.expressions.values.moments import Time
from shared.expressions.values.numerals import wrap
from shared.expressions.values.zones import GREENWICH, LOCAL, Fixed, Region

_Implementation = Callable[..., object]


class Method(msgspec.Struct, frozen=True):
    """A method: the types it takes, the type it gives, and what it does."""

    takes: tuple[str, ...]
    gives: str
    apply: _Implementation


def _compare(left: Time, right: Time) -> int:
    return (left > right) - (left < right)


def _since(unit: int) -> _Implementation:
    return lambda time: wrap(time.total_ns() // unit)


_TEXT = Method((), "string", format_value)

_TIME: dict[str, Method] = {
    "Add": Method(("duration",), "time", Time.add),
    "AddDate": Method(("int", "int", "int"), "time", Time.add_date),
    "After": Method(("time",), "bool", lambda one, other: one > other),
    "Before": Method(("time",), "bool", lambda one, other: one < other),
    "Compare": Method(("time",), "int", _compare),
    "Day": Method((), "int", lambda time: time.date().day),
    "Equal": Method(("time",), "bool", lambda one, other: one == other),
    "Format": Method(("string",), "string", format_time),
    "Hour": Method((), "int", lambda time: time.clock()[0]),
    "ISOWeek": Method((), "int", Time.iso_year),
    "In": Method(("location",), "time", Time.placed),
    "IsDST": Method((), "bool", lambda time: time.offset().summer),
    "IsZero": Method((), "bool", Time.is_zero),
    "Local": Method((), "time", lambda time: time.placed(LOCAL)),
    "Location": Method((), "location", lambda time: time.zone),
    "Minute": Method((), "int", lambda time: time.clock()[1]),
    "Month": Method((), "month", Time.month),
    "Nanosecond": Method((), "int", lambda time: time.ns),
    "Round": Method(("duration",), "time", Time.round),
    "Second": Method((), "int", lambda time: time.clock()[2]),
    "String": _TEXT,
    "Sub": Method(("time",), "duration", Time.sub),
    "Truncate": Method(("duration",), "time", Time.truncate),
    "UTC": Method((), "time", lambda time: time.placed(GREENWICH)),
    "Unix": Method((), "int", _since(DURATION_SECOND)),
    "UnixMicro": Method((), "int", _since(1_000)),
    "UnixMilli": Method((), "int", _since(1_000_000)),
    "UnixNano": Method((), "int", _since(1)),
    "Weekday": Method((), "weekday", Time.weekday),
    "Year": Method((), "int", lambda time: time.date().year),
    "YearDay": Method((), "int", lambda time: time.date().day_of_year),
    "Zone": Method((), "string", lambda time: time.offset().name),
}
_DURATION: dict[str, Method] = {
    "Abs": Method((), "duration", Duration.absolute),
    "Hours": Method((), "float", lambda length: length.within("h")),
    "Microseconds": Method((), "int", lambda length: length.whole("us")),
    "Milliseconds": Method((), "int", lambda length: length.whole("ms")),
    "Minutes": Method((), "float", lambda length: length.within("m")),
    "Nanoseconds": Method((), "int", lambda length: length.ns),
    "Round": Method(("duration",), "duration", Duration.round),
    "Seconds": Method((), "float", lambda length: length.within("s")),
    "String": _TEXT,
    "Truncate": Method(("duration",), "duration", Duration.truncate),
}
_NAMED: dict[str, Method] = {"String": _TEXT}

METHODS: dict[type, dict[str, Method]] = {
    Time: _TIME,
    Duration: _DURATION,
    Month: _NAMED,
    Weekday: _NAMED,
    Fixed: _NAMED,
    Region: _NAMED,
}
"""The methods of each type that has any."""
METHODS_BY_KIND: dict[str, dict[str, Method]] = {
    "time": _TIME,
    "duration": _DURATION,
    "month": _NAMED,
    "weekday": _NAMED,
    "location": _NAMED,
}
"""The same by the name of a static kind."""
_TAKEN: dict[str, tuple[type, ...]] = {
    "duration": (Duration,),
    "time": (Time,),
    "int": (int,),
    "string": (str,),
    "location": (Fixed, Region),
}


def bound(value: object, name: str) -> Function:
    """Return the method `name` of a value. Raises a fault where it has none."""
    method = METHODS[type(value)].get(name)
    if method is None:
        raise ExpressionError(f"{type_name(value)} has no method {name}")
    return Function(name, partial(_call, method, name, value))


def _call(method: Method, name: str, value: object, *arguments: object) -> object:
    if len(arguments) != len(method.takes):
        raise ExpressionError(f"{name} takes {len(method.takes)} arguments, not {len(arguments)}")
    for argument, kind in zip(arguments, method.takes, strict=True):
        if type(argument) not in _TAKEN[kind]:
            raise ExpressionError(f"{name} takes a {kind}, not {type_name(argument)}")
    return method.apply(value, *arguments)
