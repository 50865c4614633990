"""Values on their way into an evaluation and out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from shared.expressions.errors import ExpressionError, limit_error
from shared.expressions.limits import ENTRY_ELEMENTS, MAX_ITEMS, MAX_VALUE_DEPTH, Budget
from shared.expressions.values.durations import Duration
from shared.expressions.values.formatting import format_value, special
from shared.expressions.values.kinds import Month, Table, Texts, Weekday, is_map
from shared.expressions.values.layouts import RFC3339_NANO, format_time
from shared.expressions.values.moments import Time
from shared.expressions.values.numerals import MAX_INT64, MIN_INT
from shared.expressions.values.strings import adopted, presented

_MAPS_OF_TEXTS = frozenset(["inputs", "secrets", "tasks", "job"])
"""The names whose maps hold nothing but texts, a missing one being empty."""
_KEPT = (bool, float, type(None), Texts, Table, Time, Duration, Month, Weekday)


def adopt(name: str, value: object, budget: Budget) -> object:
    """Return a value of the scope as the language has it: the maps of texts such, whole numbers beyond 64
    bits as floats, texts sound. Raises a `limit` fault where it is nested too deeply."""
    budget.step(1 + (len(value) if isinstance(value, list | tuple | Mapping) else 0))
    if name not in _MAPS_OF_TEXTS or not isinstance(value, dict):
        return _adopt(value, 0)
    if not all(isinstance(text, str) for text in value.values()):
        return _adopt(value, 0)
    return Texts({adopted(key): adopted(text) for key, text in value.items()})


def _adopt(value: object, depth: int) -> object:
    if depth > MAX_VALUE_DEPTH:
        raise limit_error(f"a value of the scope is nested deeper than {MAX_VALUE_DEPTH}")
    if isinstance(value, str):
        return adopted(value)
    if isinstance(value, _KEPT):
        return value
    if isinstance(value, int):
        return value if MIN_INT <= value <= MAX_INT64 else _as_float(value)
    if isinstance(value, list | tuple):
        return [_adopt(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {adopted(str(key)): _adopt(item, depth + 1) for key, item in value.items()}
    raise TypeError(f"a {type(value).__name__} cannot be in the scope of an expression")


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def finished(value: object, budget: Budget | None = None) -> object:
    """Return a value as plain lists and dicts, its texts sound. Raises a `limit` fault where it is nested
    too deeply, or holds so much by holding the same again and again that no one could print it."""
    return _Walk(lambda scalar: scalar, budget or Budget()).walk(value, 0)


def to_plain(value: object, budget: Budget | None = None) -> object:
    """Return a value as JSON has it: dates in RFC 3339, durations in nanoseconds, keys as texts.

    Raises a fault for a float that is no number or not finite, and as `finished` does.
    """
    return _Walk(_plain_scalar, budget or Budget()).walk(value, 0)


def _plain_scalar(value: object) -> object:
    if isinstance(value, Duration):
        return value.ns
    if isinstance(value, Month | Weekday):
        return value.number
    if isinstance(value, Time):
        return format_time(value, RFC3339_NANO)
    if isinstance(value, float) and special(value) is not None:
        raise ExpressionError(f"{special(value)} cannot be stored: JSON can't represent it")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return format_value(value)


class _Walk:
    def __init__(self, scalar: Callable[[object], object], budget: Budget) -> None:
        self._budget = budget
        self._scalar = scalar
        self._left = MAX_ITEMS

    def walk(self, value: object, depth: int) -> object:
        self._left -= 1
        self._budget.step()
        if depth > MAX_VALUE_DEPTH:
            raise limit_error(f"the value is nested deeper than {MAX_VALUE_DEPTH}")
        if self._left < 0:
            raise limit_error(f"the value holds more than {MAX_ITEMS:,} elements")
        if isinstance(value, str):
            return presented(value)
        if isinstance(value, list):
            self._budget.build(len(value))
            return [self.walk(item, depth + 1) for item in value]
        if is_map(value):
            assert isinstance(value, Mapping)
            return self._map(value, depth)
        return self._scalar(value)

    def _map(self, value: Mapping[object, object], depth: int) -> object:
        self._budget.build(ENTRY_ELEMENTS * (1 + len(value)))
        entries = [(key, self.walk(item, depth + 1)) for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in entries):
            return {presented(str(key)): item for key, item in entries}
        if self._scalar is _plain_scalar:
            return {presented(format_value(key)): item for key, item in entries}
        table = Table()
        for key, item in entries:
            table.put(key, item)
        return table
