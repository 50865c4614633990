"""Numbers as expressions write them."""

from __future__ import annotations

import math
import re

from shared.expressions.errors import syntax_error

MAX_INT64 = 2**63 - 1
"""The largest whole number (64 bits with a sign)."""
MIN_INT = -(2**63)
"""The smallest whole number."""
_BASES = {"0x": 16, "0o": 8, "0b": 2}
_DECIMAL = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MANY_DIGITS = 400


def wrap(number: int) -> int:
    """Return the number in 64 bits: past the largest it starts again at the smallest, as in Go."""
    if MIN_INT <= number <= MAX_INT64:
        return number
    return (number - MIN_INT & 0xFFFF_FFFF_FFFF_FFFF) + MIN_INT


def truncate(number: float) -> int:
    """Return the whole part of a float; what no 64 bits hold becomes the smallest number, as on amd64."""
    if number != number or not -(2.0**63) <= number < 2.0**63:
        return MIN_INT
    return int(number)


def read_number(written: str, position: int) -> int | float:
    """Return the value of a number token. Raises a `syntax` fault where it has none."""
    digits = written.replace("_", "").lower()
    base = _BASES.get(digits[:2])
    if base == 16 or (base is not None and "." not in digits and "e" not in digits):
        return _whole(digits[2:], base, written, position)
    if "." in digits or "e" in digits:
        return _float(digits, written, position)
    return _whole(digits, 10, written, position)


def _whole(digits: str, base: int, written: str, position: int) -> int:
    allowed = "0123456789abcdef"[:base]
    if not digits or digits.strip(allowed):
        raise syntax_error(f"{written!r} is not a number", position)
    if len(digits) > _MANY_DIGITS or int(digits, base) > MAX_INT64:
        raise syntax_error(f"{written!r} does not fit in 64 bits", position)
    return int(digits, base)


def _float(digits: str, written: str, position: int) -> float:
    if not _DECIMAL.fullmatch(digits):
        raise syntax_error(f"{written!r} is not a number", position)
    number = float(digits)
    if math.isinf(number):
        raise syntax_error(f"{written!r} does not fit in a float", position)
    return number
