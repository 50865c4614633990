"""When two values are equal."""

from __future__ import annotations

from collections.abc import Mapping

from shared.expressions.limits import Budget
from shared.expressions.values.durations import Duration
from shared.expressions.values.kinds import Ints, Nil, Strings, Table, is_map, is_nil, is_number
from shared.expressions.values.moments import Time

_COST = 4
"""Steps that one comparison costs."""
_KINDS_THAT_MIX = (list, Ints, Strings, Nil)


def equal(left: object, right: object, budget: Budget) -> bool:
    """`==`: numbers by value whatever their type, lists element by element, maps only if what they
    hold is the same down to the types (so a map from JSON equals none with whole numbers)."""
    budget.step(_COST)
    if is_number(left) and is_number(right):
        return left == right
    if type(left) in _KINDS_THAT_MIX and type(right) in _KINDS_THAT_MIX:
        assert isinstance(left, list)
        assert isinstance(right, list)
        return _lists_equal(left, right, budget)
    if isinstance(left, str) and isinstance(right, str):
        budget.read(min(len(left), len(right)))
        return left == right
    if isinstance(left, Time | Duration):
        return type(left) is type(right) and left == right
    if is_nil(left) and is_nil(right):
        return True
    return identical(left, right, budget)


def _lists_equal(left: list[object], right: list[object], budget: Budget) -> bool:
    if len(left) != len(right):
        return False
    return all(equal(one, other, budget) for one, other in zip(left, right, strict=True))


def identical(left: object, right: object, budget: Budget) -> bool:
    """Equal down to the types: 1 is not 1.0, and a list never made is not an empty one."""
    budget.step(_COST)
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        assert isinstance(right, list)
        return len(left) == len(right) and all(
            identical(one, other, budget) for one, other in zip(left, right, strict=True)
        )
    if is_map(left):
        assert isinstance(left, Mapping)
        assert isinstance(right, Mapping)
        return _maps_identical(left, right, budget)
    if isinstance(left, str):
        budget.read(len(left))
    return left == right


def _maps_identical(
    left: Mapping[object, object], right: Mapping[object, object], budget: Budget
) -> bool:
    if len(left) != len(right) or _group(left) != _group(right):
        return False
    return all(key in right and identical(item, right[key], budget) for key, item in left.items())


def _group(value: Mapping[object, object]) -> bool:
    return isinstance(value, Table) and value.groups
