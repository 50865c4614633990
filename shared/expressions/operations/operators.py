"""What stands between two values, or before one."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from shared.expressions.errors import ExpressionError
from shared.expressions.limits import Budget
from shared.expressions.operations.powers import power
from shared.expressions.values.durations import Duration
from shared.expressions.values.kinds import Ints, is_int, is_nil, is_number, type_name
from shared.expressions.values.moments import Time
from shared.expressions.values.numerals import truncate, wrap
from shared.expressions.values.strings import concatenated, contains_text, ends, starts

_Operation = Callable[[object, object, Budget], object]


def _refused(sign: str, left: object, right: object) -> ExpressionError:
    return ExpressionError(f"invalid operation: {type_name(left)} {sign} {type_name(right)}")


def to_int(value: object) -> int:
    """Return a number as a whole one, cut toward zero. Raises a fault for anything else."""
    if is_int(value):
        assert isinstance(value, int)
        return value
    if isinstance(value, float):
        return truncate(value)
    raise ExpressionError(f"expected a number, not {type_name(value)}")


def to_float(value: object) -> float:
    """Return a number as a float. Raises a fault for anything else."""
    if is_number(value):
        assert isinstance(value, int | float)
        return float(value)
    raise ExpressionError(f"expected a number, not {type_name(value)}")


def to_text(value: object) -> str:
    """Return a text. Raises a fault for anything else."""
    if isinstance(value, str):
        return value
    raise ExpressionError(f"expected a string, not {type_name(value)}")


def to_bool(value: object) -> bool:
    """Return a boolean. Raises a fault for anything else."""
    if isinstance(value, bool):
        return value
    raise ExpressionError(f"expected a bool, not {type_name(value)}")


def _number(
    function: Callable[[int | float, int | float], int | float], left: object, right: object
) -> object:
    """Return a number by Go's rules: whole numbers wrap round at 64 bits, a float makes it a float."""
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    if is_int(left) and is_int(right):
        return wrap(int(function(left, right)))
    return function(float(left), float(right))


def add(left: object, right: object, budget: Budget) -> object:
    """`+` of numbers, texts, and of dates and durations."""
    if is_number(left) and is_number(right):
        return _number(operator.add, left, right)
    if isinstance(left, str) and isinstance(right, str):
        budget.write(len(left) + len(right), left, right)
        return concatenated(left, right)
    if isinstance(left, Duration) and isinstance(right, Duration):
        return Duration(left.ns + right.ns)
    if isinstance(left, Time) and isinstance(right, Duration):
        return left.add(right)
    if isinstance(left, Duration) and isinstance(right, Time):
        return right.add(left)
    raise _refused("+", left, right)


def subtract(left: object, right: object, _: Budget) -> object:
    """`-` of numbers, and of dates and durations."""
    if is_number(left) and is_number(right):
        return _number(operator.sub, left, right)
    if isinstance(left, Duration) and isinstance(right, Duration):
        return Duration(left.ns - right.ns)
    if isinstance(left, Time) and isinstance(right, Time):
        return left.sub(right)
    if isinstance(left, Time) and isinstance(right, Duration):
        return left.add(Duration(-right.ns))
    raise _refused("-", left, right)


def multiply(left: object, right: object, _: Budget) -> object:
    """`*` of numbers and durations; a duration times a float is a float of nanoseconds."""
    lengths = isinstance(left, Duration) or isinstance(right, Duration)
    one = left.ns if isinstance(left, Duration) else left
    other = right.ns if isinstance(right, Duration) else right
    if not is_number(one) or not is_number(other):
        raise _refused("*", left, right)
    product = _number(operator.mul, one, other)
    return Duration(product) if lengths and isinstance(product, int) else product


def divide(left: object, right: object, _: Budget) -> object:
    """`/`: always a float; by zero it is infinite or no number."""
    if not is_number(left) or not is_number(right):
        raise _refused("/", left, right)
    dividend, divisor = to_float(left), to_float(right)
    if divisor != 0:
        return dividend / divisor
    if dividend == 0 or dividend != dividend:
        return math.nan
    return math.copysign(math.inf, dividend) * math.copysign(1.0, divisor)


def modulo(left: object, right: object, _: Budget) -> object:
    """`%` of whole numbers, with the sign of the dividend."""
    if not is_int(left) or not is_int(right):
        raise _refused("%", left, right)
    assert isinstance(left, int)
    assert isinstance(right, int)
    if right == 0:
        raise ExpressionError("integer divide by zero")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


_POWER_STEPS = 16
"""Steps that a power costs."""


def exponent(left: object, right: object, budget: Budget) -> object:
    """`**` and `^`: always a float."""
    budget.step(_POWER_STEPS)
    return power(to_float(left), to_float(right))


def _ordered(sign: str, compare: Callable[[Any, Any], bool]) -> _Operation:
    def apply(left: object, right: object, budget: Budget) -> bool:
        if is_number(left) and is_number(right):
            return compare(left, right)
        if isinstance(left, str) and isinstance(right, str):
            budget.read(len(left) + len(right))
            return compare(_sortable(left), _sortable(right))
        if type(left) is type(right) and isinstance(left, Time | Duration):
            return compare(_instant(left), _instant(right))
        raise _refused(sign, left, right)

    return apply


def _sortable(text: str) -> object:
    """Texts order by their bytes, which is how code points order but for broken bytes."""
    return text.encode("utf-8", "surrogateescape")


def _instant(value: object) -> int:
    if isinstance(value, Time):
        return value.total_ns()
    assert isinstance(value, Duration)
    return value.ns


less = _ordered("<", operator.lt)
more = _ordered(">", operator.gt)
at_most = _ordered("<=", operator.le)
at_least = _ordered(">=", operator.ge)


def _span(left: object, right: object, budget: Budget) -> object:
    """`..`: the whole numbers from one to the other, both included."""
    first, last = to_int(left), to_int(right)
    budget.build(max(0, last - first + 1))
    return Ints(range(first, last + 1))


def _on_texts(test: Callable[[str, str], bool]) -> _Operation:
    def apply(left: object, right: object, budget: Budget) -> bool:
        if is_nil(left) or is_nil(right):
            return False
        text, part = to_text(left), to_text(right)
        budget.read(len(text) + len(part))
        return test(text, part)

    return apply


contains = _on_texts(contains_text)
starts_with = _on_texts(starts)
ends_with = _on_texts(ends)

OPERATIONS: dict[str, _Operation] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": modulo,
    "**": exponent,
    "^": exponent,
    "<": less,
    ">": more,
    "<=": at_most,
    ">=": at_least,
    "..": _span,
    "contains": contains,
    "startsWith": starts_with,
    "endsWith": ends_with,
}
"""The operators that evaluate both sides and need no types known beforehand."""


def negated(value: object) -> object:
    """`-x` of a number."""
    if is_int(value):
        assert isinstance(value, int)
        return wrap(-value)
    if isinstance(value, float):
        return -value
    raise ExpressionError(f"invalid operation: - {type_name(value)}")
