"""Lengths of time in nanoseconds, written as Go writes them (`1h30m0s`)."""

from __future__ import annotations

import re
from functools import total_ordering

from shared.expressions.errors import ExpressionError
from shared.expressions.values.numerals import MAX_INT64, MIN_INT, wrap

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
DURATION_SECOND = _UNITS["s"]
"""Nanoseconds in a second."""
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]+)")
_MAX_DIGITS = 20


@total_ordering
class Duration:
    """A length of time; `ns` counts nanoseconds in 64 bits."""

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        self.ns = wrap(ns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.ns == self.ns

    def __lt__(self, other: Duration) -> bool:
        return self.ns < other.ns

    def __hash__(self) -> int:
        return hash(("duration", self.ns))

    def __str__(self) -> str:
        sign = "-" if self.ns < 0 else ""
        ns = abs(self.ns)
        if ns == 0:
            return "0s"
        if ns < DURATION_SECOND:
            unit = "ns" if ns < 1_000 else "µs" if ns < 1_000_000 else "ms"
            return sign + _decimal(ns, _UNITS[unit]) + unit
        minutes, rest = divmod(ns, _UNITS["m"])
        hours, minutes = divmod(minutes, 60)
        text = _decimal(rest, DURATION_SECOND) + "s"
        if hours:
            text = f"{hours}h{minutes}m{text}"
        elif minutes:
            text = f"{minutes}m{text}"
        return sign + text

    def __repr__(self) -> str:
        return f"Duration({self})"

    def within(self, unit: str) -> float:
        """Return the length in a unit (`h`, `m`, `s`), with its fraction."""
        size = _UNITS[unit]
        whole = abs(self.ns) // size
        length = float(whole) + float(abs(self.ns) - whole * size) / float(size)
        return -length if self.ns < 0 else length

    def whole(self, unit: str) -> int:
        """Return the length in whole units (`ns`, `us`, `ms`), cut toward zero."""
        return _cut(self.ns, _UNITS[unit])

    def truncate(self, step: Duration) -> Duration:
        """Return the nearest multiple of `step` toward zero; itself where `step` is not positive."""
        if step.ns <= 0:
            return self
        return Duration(_cut(self.ns, step.ns) * step.ns)

    def round(self, step: Duration) -> Duration:
        """Return the nearest multiple of `step`, halves away from zero; never past what 64 bits hold."""
        if step.ns <= 0:
            return self
        steps = (abs(self.ns) * 2 + step.ns) // (step.ns * 2)
        return clamped(steps * step.ns * (-1 if self.ns < 0 else 1))

    def absolute(self) -> Duration:
        """Return its length without a sign, never past what 64 bits hold."""
        return clamped(abs(self.ns))


def clamped(ns: int) -> Duration:
    """Return a length that stops at the ends of 64 bits rather than start again."""
    return Duration(max(MIN_INT, min(MAX_INT64, ns)))


def _cut(number: int, step: int) -> int:
    whole = abs(number) // step
    return -whole if number < 0 else whole


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def parse_go_duration(text: str) -> Duration:
    """Return the duration that `1h30m`, `-1.5h` or `250ms` writes. Raises a fault for anything else."""
    unsigned = text[1:] if text[:1] in ("-", "+") else text
    if unsigned == "0":
        return Duration(0)
    total, position = 0, 0
    while position < len(unsigned):
        part = _PART.match(unsigned, position)
        if part is None:
            raise _not_a_duration()
        total += _nanoseconds(part)
        position = part.end()
    negative = text.startswith("-")
    if not unsigned or total > (-MIN_INT if negative else MAX_INT64):
        raise _not_a_duration()
    return Duration(-total if negative else total)


def _nanoseconds(part: re.Match[str]) -> int:
    whole, fraction, unit = part.groups()
    size = _UNITS.get(unit)
    if size is None or (not whole and not fraction) or len(whole.lstrip("0")) > _MAX_DIGITS:
        raise _not_a_duration()
    total = int(whole or "0") * size
    if fraction:
        digits = fraction[:18]
        total += int(float(int(digits)) * (float(size) / 10.0 ** len(digits)))
    return total


def _not_a_duration() -> ExpressionError:
    return ExpressionError("the text is not a duration (such as 1h30m, 90s, 250ms)")
