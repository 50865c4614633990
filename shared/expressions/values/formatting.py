"""Values as text, as Go's `%v` writes them."""

from __future__ import annotations

from collections.abc import Mapping

from shared.expressions.errors import limit_error
from shared.expressions.limits import (
    MAX_ITEMS,
    MAX_RENDERED,
    MAX_VALUE_DEPTH,
    TEXT_BYTES,
    Budget,
    width,
)
from shared.expressions.values.kinds import Function, is_map, pairs_of
from shared.expressions.values.layouts import SHOWN, format_time
from shared.expressions.values.moments import Time

_LEAST_POWER, _GREATEST_POWER = -4, 6


def shortest(number: float) -> tuple[str, str, int]:
    """Return a finite float as sign, the fewest digits that tell it from others, and the place of the point
    after the first digit, as a power of ten."""
    mantissa, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    power = int(exponent or "0") + len(whole) - 1
    digits = whole + fraction
    stripped = digits.lstrip("0")
    power -= len(digits) - len(stripped)
    sign = "-" if str(number).startswith("-") else ""
    return sign, stripped.rstrip("0") or "0", power if stripped.strip("0") else 0


def special(number: float) -> str | None:
    """Return the name of a float that is no number or not finite."""
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "+Inf" if number > 0 else "-Inf"
    return None


def exponential_text(sign: str, digits: str, power: int) -> str:
    """`1.5e+06`, the exponent of two digits at least."""
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02d}"


def positional(sign: str, digits: str, power: int) -> str:
    """`1500` or `0.0015`, without an exponent."""
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    padded = digits.ljust(power + 1, "0")
    fraction = padded[power + 1 :]
    return f"{sign}{padded[: power + 1]}" + (f".{fraction}" if fraction else "")


def format_float(number: float) -> str:
    """Return a float in the fewest digits, with an exponent from a million on and under 0.0001."""
    named = special(number)
    if named is not None:
        return named
    sign, digits, power = shortest(number)
    if not _LEAST_POWER <= power < _GREATEST_POWER:
        return exponential_text(sign, digits, power)
    return positional(sign, digits, power)


def format_value(value: object, budget: Budget | None = None) -> str:
    """Return the text of any value, taken out of `budget` while it is written. Raises a `limit` fault where it would
    be too long or too nested."""
    if isinstance(value, str):
        return value
    written: list[str] = []
    _Writer(written, budget or Budget()).write(value, 0)
    return "".join(written)


class _Writer:
    def __init__(self, written: list[str], budget: Budget) -> None:
        self._written = written
        self._budget = budget
        self._left = MAX_RENDERED
        self._elements = MAX_ITEMS + 1

    def _put(self, text: str) -> None:
        self._left -= len(text)
        if self._left < 0:
            raise limit_error(f"the text is longer than {MAX_RENDERED:,} characters")
        self._budget.take(len(text) * width(text))
        self._written.append(text)

    def write(self, value: object, depth: int) -> None:
        self._elements -= 1
        self._budget.step()
        if depth > MAX_VALUE_DEPTH:
            raise limit_error(f"the value is nested deeper than {MAX_VALUE_DEPTH}")
        if self._elements < 0:
            raise limit_error(f"the value holds more than {MAX_ITEMS:,} elements")
        if isinstance(value, list):
            self._list(value, depth)
        elif is_map(value):
            assert isinstance(value, Mapping)
            self._map(value, depth)
        else:
            self._budget.take(TEXT_BYTES)
            self._put(format_scalar(value))

    def _list(self, items: list[object], depth: int) -> None:
        self._put("[")
        for index, item in enumerate(items):
            if index:
                self._put(" ")
            self.write(item, depth + 1)
        self._put("]")

    def _map(self, value: Mapping[object, object], depth: int) -> None:
        self._put("map[")
        for index, (key, item) in enumerate(pairs_of(value)):
            if index:
                self._put(" ")
            self.write(key, depth + 1)
            self._put(":")
            self.write(item, depth + 1)
        self._put("]")


def format_scalar(value: object) -> str:
    """Return the text of a value that holds no others."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_float(value)
    if isinstance(value, Time):
        return format_time(value, SHOWN)
    if isinstance(value, Function):
        return f"func {value.name}"
    return str(value)
