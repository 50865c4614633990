"""Functions of dates, durations and time zones."""

from __future__ import annotations

from collections.abc import Callable

from shared.expressions.compilation.code import Frame
from shared.expressions.errors import ExpressionError
from shared.expressions.operations.operators import to_text
from shared.expressions.values.dates import parse_any, parse_time
from shared.expressions.values.durations import parse_go_duration
from shared.expressions.values.kinds import type_name
from shared.expressions.values.zones import Fixed, Location, Region, load_location

_DATE_STEPS = 100
"""Steps that it costs to read a date, or to look a time zone up, besides one for each character of the texts."""


def _location(value: object) -> Location:
    if isinstance(value, Fixed | Region):
        return value
    raise ExpressionError(f"expected a time zone, not {type_name(value)}")


def _now(frame: Frame, zone: object = None) -> object:
    return frame.now if zone is None else frame.now.placed(_location(zone))


def _duration(frame: Frame, value: object) -> object:
    text = to_text(value)
    frame.budget.step(1 + len(text))
    return parse_go_duration(text)


def _date(frame: Frame, *arguments: object) -> object:
    zone: Location | None = None
    first, *rest = arguments
    if isinstance(first, Fixed | Region):
        zone = first
        if not rest:
            raise ExpressionError("date takes a text besides a time zone")
        first, *rest = rest
    text, *how = map(to_text, (first, *rest))
    frame.budget.step(_DATE_STEPS + sum(map(len, (text, *how))))
    if len(how) == 1:
        return parse_time(text, how[0], zone)
    if len(how) == 2:
        return parse_time(text, how[0], load_location(how[1]))
    return parse_any(text, zone)


def _timezone(frame: Frame, value: object) -> object:
    name = to_text(value)
    frame.budget.step(_DATE_STEPS + len(name))
    return load_location(name)


TIMES: dict[str, Callable[..., object]] = {
    "now": _now,
    "duration": _duration,
    "date": _date,
    "timezone": _timezone,
}
