"""Durations as Go writes them: `1h30m`, `1.5h`, `250ms`; inside, whole nanoseconds."""

import re
from typing import Final

NANOSECOND: Final = 1
MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
NANOS_PER_SECOND: Final = 1_000_000_000
NANOS_PER_MINUTE: Final = 60 * NANOS_PER_SECOND
NANOS_PER_HOUR: Final = 60 * NANOS_PER_MINUTE

_UNITS: Final = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "\u00b5s": MICROSECOND,  # the micro sign
    "\u03bcs": MICROSECOND,  # the Greek letter mu
    "ms": MILLISECOND,
    "s": NANOS_PER_SECOND,
    "m": NANOS_PER_MINUTE,
    "h": NANOS_PER_HOUR,
}
_LARGEST: Final = 2**63 - 1
# No duration needs more, and Python's int() refuses more than 4,300 digits in its own words.
_LONGEST_TEXT: Final = 1_000
_PART: Final = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration, read by the rules of Go's `time.ParseDuration`.

    Raises ValueError, with a message to show to the user, for anything else.
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError("not a duration: too long")
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total = _sum_of_parts(text, rest)
    if total > (_LARGEST if sign > 0 else _LARGEST + 1):
        raise ValueError(f'"{text}" is longer than a duration can be (about 292 years)')
    return sign * total


def duration_seconds(text: str) -> float:
    """Return the seconds of a Go duration; raises ValueError as parse_duration does."""
    return parse_duration(text) / NANOS_PER_SECOND


def format_duration(nanoseconds: int) -> str:
    """Return the text that Go's `time.Duration.String` gives: `1h0m0s`, `1.5s`, `250ms`, `0s`."""
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest == 0:
        return "0s"
    if rest < NANOS_PER_SECOND:
        return sign + _below_a_second(rest)
    minutes, rest = divmod(rest, NANOS_PER_MINUTE)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, NANOS_PER_SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def _sum_of_parts(text: str, rest: str) -> int:
    total, position = 0, 0
    while position < len(rest) or not rest:
        match = _PART.match(rest, position)
        assert match is not None  # every group may be empty
        whole, point, fraction, unit = match.groups()
        if not whole and not fraction:
            raise ValueError(_hint(text))
        if unit not in _UNITS:
            raise ValueError(_hint(text))
        total += int(whole or "0") * _UNITS[unit]
        if point and fraction:
            total += _fraction(fraction, _UNITS[unit])
        position = match.end()
    return total


def _fraction(digits: str, unit: int) -> int:
    # As Go does it, in floating point over the digits that fit 63 bits: so that 0.1s and the like
    # come out the same there and here.
    value, scale = 0, 1.0
    for digit in digits:
        if value > _LARGEST // 10 or value * 10 + int(digit) > _LARGEST + 1:
            break
        value, scale = value * 10 + int(digit), scale * 10
    return int(float(value) * (float(unit) / scale))


def _hint(text: str) -> str:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return f'"{shown}" is not a duration: write a number and a unit, like 90s, 1h30m or 250ms'


def _below_a_second(nanoseconds: int) -> str:
    if nanoseconds < MICROSECOND:
        return f"{nanoseconds}ns"
    if nanoseconds < MILLISECOND:
        return f"{_decimal(nanoseconds, MICROSECOND)}\u00b5s"
    return f"{_decimal(nanoseconds, MILLISECOND)}ms"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"
