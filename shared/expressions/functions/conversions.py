"""Functions from one kind of value to another."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from shared.expressions.compilation.code import Frame
from shared.expressions.errors import ExpressionError
from shared.expressions.limits import ENTRY_ELEMENTS
from shared.expressions.operations.operators import to_text
from shared.expressions.values.durations import Duration
from shared.expressions.values.formatting import format_value
from shared.expressions.values.jsontext import from_json, to_json
from shared.expressions.values.kinds import Month, Weekday, is_int, is_number, type_name
from shared.expressions.values.numerals import MAX_INT64, MIN_INT, truncate
from shared.expressions.values.strings import adopted, from_bytes, to_bytes

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(
    r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+"
)
_NAMED = re.compile(r"[+-]?(?:inf|infinity)|nan", re.IGNORECASE)
_UNDERSCORE = re.compile(r"(?<=[0-9a-fA-FxX])_(?=[0-9a-fA-F])")
_MANY_DIGITS = 1_000
_NUMERAL_COST = 16
"""How many characters read cost as much as one of a decimal number."""


def _type(_: Frame, value: object) -> object:
    return type_name(value)


def _int(frame: Frame, value: object) -> object:
    if is_int(value):
        return value
    if isinstance(value, float):
        return truncate(value)
    if isinstance(value, str):
        frame.budget.read(len(value))
        return _parse_int(value)
    if isinstance(value, Duration):
        return value.ns
    if isinstance(value, Month | Weekday):
        return value.number
    raise ExpressionError(f"invalid operation: int({type_name(value)})")


def _parse_int(text: str) -> int:
    if _WHOLE.fullmatch(text) and len(text) <= _MANY_DIGITS:
        number = int(text)
        if MIN_INT <= number <= MAX_INT64:
            return number
    raise ExpressionError("invalid operation: int() of a text that is not a whole number")


def _float(frame: Frame, value: object) -> object:
    if is_number(value):
        assert isinstance(value, int | float)
        return float(value)
    if isinstance(value, str):
        frame.budget.read(_NUMERAL_COST * len(value))
        return _parse_float(value)
    raise ExpressionError(f"invalid operation: float({type_name(value)})")


def _parse_float(text: str) -> float:
    if _NAMED.fullmatch(text):
        return float(text)
    digits = (
        _UNDERSCORE.sub("", text) if text[1:2] in "xX" or text[2:3] in "xX" or "_" in text else text
    )
    number = _read_float(digits)
    if number in (float("inf"), float("-inf")):
        raise ExpressionError("invalid operation: float() of a number that no float holds")
    return number


def _read_float(digits: str) -> float:
    if _DECIMAL.fullmatch(digits):
        return float(digits)
    if not _HEXADECIMAL.fullmatch(digits):
        raise ExpressionError("invalid operation: float() of a text that is not a number")
    try:
        return float.fromhex(digits)
    except OverflowError:
        return float("inf")


def _string(frame: Frame, value: object) -> object:
    if isinstance(value, str):
        return value
    return format_value(value, frame.budget)


def _to_json(frame: Frame, value: object) -> object:
    return to_json(value, frame.budget)


def _from_json(frame: Frame, value: object) -> object:
    text = adopted(to_text(value))
    frame.budget.read(8 * len(text))
    containers = text.count("[") + text.count("{")
    frame.budget.build(1 + 2 * text.count(",") + ENTRY_ELEMENTS * containers)
    frame.budget.write(len(text), text)
    return from_json(text)


def _to_base64(frame: Frame, value: object) -> object:
    data = to_bytes(to_text(value))
    frame.budget.write(len(data) * 3)
    return base64.b64encode(data).decode("ascii")


def _from_base64(frame: Frame, value: object) -> object:
    given = to_text(value)
    frame.budget.write(2 * len(given), given)
    text = given.replace("\n", "").replace("\r", "")
    try:
        return from_bytes(base64.b64decode(text.encode("ascii"), validate=True))
    except (binascii.Error, ValueError):
        raise ExpressionError("the text is not base64") from None


CONVERSIONS: dict[str, Callable[..., object]] = {
    "type": _type,
    "int": _int,
    "float": _float,
    "string": _string,
    "toJSON": _to_json,
    "fromJSON": _from_json,
    "toBase64": _to_base64,
    "fromBase64": _from_base64,
}
