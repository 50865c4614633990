"""JSON, written and read as Go's encoding/json does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

from shared.expressions.errors import ExpressionError, limit_error
from shared.expressions.limits import (
    MAX_ITEMS,
    MAX_RENDERED,
    MAX_VALUE_DEPTH,
    TEXT_BYTES,
    Budget,
    width,
)
from shared.expressions.values.durations import Duration
from shared.expressions.values.formatting import exponential_text, positional, shortest, special
from shared.expressions.values.kinds import Month, Nil, Table, Weekday, is_map, type_name
from shared.expressions.values.layouts import RFC3339_NANO, format_time
from shared.expressions.values.moments import Time
from shared.expressions.values.strings import adopted

_ESCAPED = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_LEAST_POWER, _GREATEST_POWER = -6, 21
_ESCAPE_COST = 8
"""How many characters read cost as much as one that may have to be escaped."""
_TEXT_PART = 65_536
_PIECE_STEPS = 2
"""Steps that it costs to write an element, a key or a bracket."""


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if "\ud800" <= character <= "\udfff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def json_string(text: str) -> str:
    """Return the text in quotes, safe inside HTML too."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def json_float(number: float) -> str:
    """Return the float in the fewest digits. Raises a fault for what JSON has no word for."""
    if special(number) is not None:
        raise ExpressionError(f"JSON has no {special(number)}")
    sign, digits, power = shortest(number)
    if digits == "0":
        return f"{sign}0"
    if power < _LEAST_POWER or power >= _GREATEST_POWER:
        return exponential_text(sign, digits, power).replace("e-0", "e-").replace("e+0", "e+")
    return positional(sign, digits, power)


def to_json(value: object, budget: Budget) -> str:
    """Return the value as JSON over several lines, two spaces deep, keys in order, taken out of `budget` while it is
    written.

    Raises a fault for what JSON cannot hold: maps with keys of any kind, functions, NaN.
    """
    written: list[str] = []
    size = 0
    for piece in _pieces(value, 0, budget):
        size += len(piece)
        budget.take(TEXT_BYTES + len(piece) * width(piece))
        budget.step(_PIECE_STEPS)
        if size > MAX_RENDERED:
            raise limit_error(f"the JSON is longer than {MAX_RENDERED:,} characters")
        written.append(piece)
        if len(written) > 4 * MAX_ITEMS:
            raise limit_error(f"the value holds more than {MAX_ITEMS:,} elements")
    return "".join(written)


def _pieces(value: object, depth: int, budget: Budget) -> Iterator[str]:
    if depth > MAX_VALUE_DEPTH:
        raise limit_error(f"the value is nested deeper than {MAX_VALUE_DEPTH}")
    if isinstance(value, list):
        yield from _list(value, depth, budget)
    elif is_map(value):
        assert isinstance(value, Mapping)
        yield from _map(value, depth, budget)
    elif isinstance(value, str):
        yield from _text(value, budget)
    else:
        yield _scalar(value)


def _list(items: list[object], depth: int, budget: Budget) -> Iterator[str]:
    if not items:
        yield "null" if isinstance(items, Nil) else "[]"
        return
    margin = "\n" + "  " * depth
    for index, item in enumerate(items):
        yield f"{',' if index else '['}{margin}  "
        yield from _pieces(item, depth + 1, budget)
    yield f"{margin}]"


def _map(value: Mapping[object, object], depth: int, budget: Budget) -> Iterator[str]:
    if isinstance(value, Table):
        raise ExpressionError("JSON has no map with keys that are not texts")
    if not value:
        yield "{}"
        return
    margin = "\n" + "  " * depth
    budget.build(len(value))
    keys = sorted((str(key) for key in value), key=lambda key: key.encode("utf-8", "surrogatepass"))
    for index, key in enumerate(keys):
        yield f"{',' if index else '{'}{margin}  "
        yield from _text(key, budget)
        yield ": "
        yield from _pieces(value[key], depth + 1, budget)
    yield f"{margin}}}"


def _text(text: str, budget: Budget) -> Iterator[str]:
    """Yield the text in quotes, part by part: what is escaped may be six times as long."""
    budget.read(_ESCAPE_COST * len(text))
    yield '"'
    for start in range(0, len(text), _TEXT_PART):
        yield _ESCAPED.sub(_escape, text[start : start + _TEXT_PART])
    yield '"'


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return json_float(value)
    return _special(value)


def _special(value: object) -> str:
    if isinstance(value, Duration):
        return str(value.ns)
    if isinstance(value, Month | Weekday):
        return str(value.number)
    if isinstance(value, Time):
        if not 0 <= value.date().year <= 9999:
            raise ExpressionError("JSON has no date outside the years 0 to 9999")
        return json_string(format_time(value, RFC3339_NANO))
    if type_name(value) == "func":
        raise ExpressionError("JSON has no functions")
    return "{}"


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")


def _number(digits: str) -> float:
    number = float(digits)
    if special(number) is not None:
        raise ValueError("more than a float holds")
    return number


def from_json(text: str) -> object:
    """Return the value of a JSON text; every number is a float. Raises a fault where it is not JSON."""
    try:
        value: object = json.loads(
            text, parse_int=_number, parse_float=_number, parse_constant=_no_constant
        )
    except ValueError:
        raise ExpressionError("the text is not JSON") from None
    except RecursionError:
        raise limit_error(f"the JSON is nested deeper than {MAX_VALUE_DEPTH}") from None
    return _checked(value, 0)


def _checked(value: object, depth: int) -> object:
    """Return the value with sound texts, no deeper than a value may be."""
    if depth > MAX_VALUE_DEPTH:
        raise limit_error(f"the JSON is nested deeper than {MAX_VALUE_DEPTH}")
    if isinstance(value, str):
        return adopted(value)
    if isinstance(value, list):
        return [_checked(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {adopted(key): _checked(item, depth + 1) for key, item in value.items()}
    return value
