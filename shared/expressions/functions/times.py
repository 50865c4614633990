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


def _location(value: object) -> Location:
    if isinstance(value, Fixed | Region):
        return value
    raise ExpressionError(f"expected a time zone, not {type_name(value)}")


def _now(frame: Frame, zone: object = None) -> object:
    return frame.now if zone is None else frame.now.placed(_location(zone))


def _duration(_: Frame, value: object) -> object:
    return parse_go_duration(to_text(value))


def _date(frame: Frame, *arguments: object) -> object:
    zone: Location | None = None
    first, *rest = arguments
    if isinstance(first, Fixed | Region):
        zone = first
        if not rest:
            raise ExpressionError("date takes a text besides a time zone")
        first, *rest = rest
    text = to_text(first)
    frame.budget.read(64 + len(text))
    if len(rest) == 1:
        return parse_time(text, to_text(rest[0]), zone)
    if len(rest) == 2:
        return parse_time(text, to_text(rest[0]), load_location(to_text(rest[1])))
    return parse_any(text, zone)


def _timezone(_: Frame, value: object) -> object:
    return load_location(to_text(value))


TIMES: dict[str, Callable[..., object]] = {
    "now": _now,
    "duration": _duration,
    "date": _date,
    "timezone": _timezone,
}
