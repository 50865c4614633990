"""Functions of numbers: rounding, the greatest and the least, averages, bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from shared.expressions.compilation.code import Frame
from shared.expressions.errors import ExpressionError
from shared.expressions.limits import MAX_VALUE_DEPTH, Budget
from shared.expressions.operations.operators import less, more, to_int
from shared.expressions.values.durations import Duration
from shared.expressions.values.kinds import Month, Weekday, is_int, is_number, type_name
from shared.expressions.values.numerals import wrap

_WORD = 64


def _invalid(name: str, value: object) -> ExpressionError:
    return ExpressionError(f"invalid argument for {name} (type {type_name(value)})")


def _abs(_: Frame, value: object) -> object:
    if is_int(value):
        assert isinstance(value, int)
        return wrap(abs(value))
    if isinstance(value, float):
        return -value if value < 0 else value
    raise _invalid("abs", value)


def _rounding(name: str, function: Callable[[float], float]) -> Callable[..., object]:
    def apply(_: Frame, value: object) -> object:
        if not is_number(value):
            raise _invalid(name, value)
        assert isinstance(value, int | float)
        number = float(value)
        return function(number) if math.isfinite(number) else number

    return apply


def _ceil(number: float) -> float:
    return math.copysign(float(math.ceil(number)), number)


def _floor(number: float) -> float:
    return math.copysign(float(math.floor(number)), number)


def _round(number: float) -> float:
    whole = math.trunc(number)
    away = abs(number - whole) >= 0.5
    return math.copysign(float(abs(whole) + away), number)


_Passes = Callable[[object, object, Budget], object]


def _extreme(name: str, passes: _Passes) -> Callable[..., object]:
    """`max` and `min`: of all numbers among the arguments and in lists there, the first of equals."""

    def apply(frame: Frame, *arguments: object) -> object:
        if len(arguments) == 1 and not isinstance(arguments[0], list):
            return arguments[0]
        chosen: object = None
        for candidate in _candidates(frame, name, arguments, 0):
            if chosen is None or passes(chosen, candidate, frame.budget):
                chosen = candidate
        return chosen

    return apply


def _candidates(frame: Frame, name: str, values: Iterable[object], depth: int) -> Iterator[object]:
    """Yield the numbers (outside of lists durations and the like too) that one is to be chosen of."""
    if depth > MAX_VALUE_DEPTH:
        raise ExpressionError(f"{name} takes no lists nested deeper than {MAX_VALUE_DEPTH}")
    for value in values:
        frame.budget.step()
        if isinstance(value, list):
            if depth and not value:
                raise _invalid(name, None)
            yield from _candidates(frame, name, value, depth + 1)
        elif is_number(value) or (depth == 0 and isinstance(value, Duration | Month | Weekday)):
            yield value
        else:
            raise _invalid(name, value)


def _flat(frame: Frame, name: str, values: list[object], depth: int = 0) -> Iterator[float]:
    """Yield all the numbers in the lists, as floats."""
    if depth > MAX_VALUE_DEPTH:
        raise ExpressionError(f"{name} takes no lists nested deeper than {MAX_VALUE_DEPTH}")
    for value in values:
        frame.budget.step()
        if isinstance(value, list):
            yield from _flat(frame, name, value, depth + 1)
        elif is_number(value):
            assert isinstance(value, int | float)
            yield float(value)
        elif isinstance(value, Duration):
            yield float(value.ns)
        elif isinstance(value, Month | Weekday):
            yield float(value.number)
        else:
            raise _invalid(name, value)


def _added(numbers: list[float]) -> float:
    total = 0.0
    for number in numbers:
        total += number
    return total


def _mean(frame: Frame, *arguments: object) -> object:
    count, total = _mean_parts(frame, list(arguments), 0)
    return total / count if count else 0.0


def _mean_parts(frame: Frame, values: list[object], depth: int) -> tuple[int, float]:
    """Return how many numbers, and their sum, list by list (which decides the last bit)."""
    count, total = 0, 0.0
    for value in values:
        if isinstance(value, list) and depth < MAX_VALUE_DEPTH:
            more_numbers, part = _mean_parts(frame, value, depth + 1)
        else:
            numbers = list(_flat(frame, "mean", [value]))
            more_numbers, part = len(numbers), _added(numbers)
        count += more_numbers
        total += part
    return count, total


def _median(frame: Frame, *arguments: object) -> object:
    numbers = sorted(
        _flat(frame, "median", list(arguments)), key=lambda number: (number == number, number)
    )
    middle, odd = divmod(len(numbers), 2)
    if not numbers:
        return 0.0
    return numbers[middle] if odd else (numbers[middle - 1] + numbers[middle]) / 2


def _integer(name: str, value: object) -> int:
    if is_int(value):
        assert isinstance(value, int)
        return value
    raise ExpressionError(f"cannot use {type_name(value)} as argument (type int) to call {name}")


def _bits(name: str, function: Callable[[int, int], int]) -> Callable[..., object]:
    def apply(_: Frame, left: object, right: object) -> object:
        return wrap(function(_integer(name, left), _integer(name, right)))

    return apply


def _shift(name: str, function: Callable[[int, int], int]) -> Callable[..., object]:
    def apply(_: Frame, value: object, count: object) -> object:
        number, places = _integer(name, value), _integer(name, count)
        if places < 0:
            raise ExpressionError("invalid operation: negative shift count")
        return wrap(function(number, min(places, _WORD)))

    return apply


def _bitnot(_: Frame, value: object) -> object:
    return ~_integer("bitnot", value)


def random_int(frame: Frame, *bound: object) -> object:
    """Return a random number from 0 up to, not including, a bound; without one, any that is not negative."""
    if not bound:
        return frame.random.getrandbits(63)
    limit = to_int(bound[0])
    if limit <= 0:
        raise ExpressionError("randomInt takes a number above zero")
    return frame.random.randrange(limit)


NUMBER_FUNCTIONS: dict[str, Callable[..., object]] = {
    "abs": _abs,
    "ceil": _rounding("ceil", _ceil),
    "floor": _rounding("floor", _floor),
    "round": _rounding("round", _round),
    "max": _extreme("max", less),
    "min": _extreme("min", more),
    "mean": _mean,
    "median": _median,
    "bitand": _bits("bitand", lambda left, right: left & right),
    "bitor": _bits("bitor", lambda left, right: left | right),
    "bitxor": _bits("bitxor", lambda left, right: left ^ right),
    "bitnand": _bits("bitnand", lambda left, right: left & ~right),
    "bitshl": _shift("bitshl", lambda number, places: number << places),
    "bitshr": _shift("bitshr", lambda number, places: number >> places),
    "bitushr": _shift("bitushr", lambda number, places: (number & (2**_WORD - 1)) >> places),
    "bitnot": _bitnot,
}
