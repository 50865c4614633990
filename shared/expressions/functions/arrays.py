"""Functions of lists and maps that are no loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cmp_to_key
from typing import Any

from shared.expressions.compilation.code import Frame
from shared.expressions.errors import ExpressionError
from shared.expressions.limits import ENTRY_ELEMENTS, MAX_VALUE_DEPTH
from shared.expressions.operations.access import fetch, fetch_or_nil
from shared.expressions.operations.operators import less, to_int, to_text
from shared.expressions.values.equality import equal
from shared.expressions.values.kinds import (
    Ints,
    Nil,
    Pair,
    Pairs,
    Strings,
    Table,
    is_int,
    is_list,
    is_map,
    type_name,
)

_SORTABLE = (list, Ints, Strings)


def _items(verb: str, value: object) -> list[object]:
    if not is_list(value):
        raise ExpressionError(f"cannot {verb} {type_name(value)}")
    assert isinstance(value, list)
    return value


def _entries(verb: str, value: object) -> Mapping[object, object]:
    if not is_map(value):
        raise ExpressionError(f"cannot {verb} {type_name(value)}")
    assert isinstance(value, Mapping)
    return value


def _len(_: Frame, value: object) -> object:
    if isinstance(value, list | str) or is_map(value):
        assert isinstance(value, list | str | Mapping)
        return len(value)
    raise ExpressionError(f"invalid argument for len (type {type_name(value)})")


def _at_end(index: int) -> Callable[..., object]:
    """`first` and `last`: nil where there is no such element, whatever the value."""

    def apply(frame: Frame, value: object) -> object:
        try:
            return fetch(value, index, frame.budget)
        except ExpressionError as error:
            if error.kind == "limit":
                raise
            return None

    return apply


def _get(frame: Frame, base: object, key: object) -> object:
    return fetch_or_nil(base, key, frame.budget)


def _take(frame: Frame, value: object, count: object) -> object:
    items = _items("take from", value)
    if not is_int(count):
        raise ExpressionError(f"cannot take {type_name(count)} elements")
    assert isinstance(count, int)
    if count < 0:
        raise ExpressionError("cannot take fewer than no elements")
    frame.budget.build(min(count, len(items)))
    kind = list if type(items) is Pair else type(items)
    return kind(items[:count])


def _keys(frame: Frame, value: object) -> object:
    entries = _entries("get keys from", value)
    frame.budget.build(len(entries))
    return list(entries)


def _values(frame: Frame, value: object) -> object:
    entries = _entries("get values from", value)
    frame.budget.build(len(entries))
    return [value for _, value in entries.items()]


def _to_pairs(frame: Frame, value: object) -> object:
    entries = _entries("make pairs of", value)
    frame.budget.build(3 * len(entries))
    return Pairs(Pair(entry) for entry in entries.items())


def _from_pairs(frame: Frame, value: object) -> object:
    table = Table()
    for pair in _items("make a map of", value):
        frame.budget.build(ENTRY_ELEMENTS)
        if not isinstance(pair, list) or len(pair) != 2:
            raise ExpressionError("a pair is a list of a key and a value")
        table.put(pair[0], pair[1])
    return table


def _reverse(frame: Frame, value: object) -> object:
    items = _items("reverse", value)
    frame.budget.build(len(items))
    return list(reversed(items))


def _uniq(frame: Frame, value: object) -> object:
    kept: list[object] = []
    seen: set[object] = set()
    for item in _items("take the different ones of", value):
        frame.budget.read(len(item) if isinstance(item, str) else 0)
        if item is None or isinstance(item, str | int | float):
            mark = (isinstance(item, bool), item)
            if mark in seen:
                continue
            seen.add(mark)
        elif any(equal(item, other, frame.budget) for other in kept):
            continue
        frame.budget.build(1)
        kept.append(item)
    return kept


def _concat(frame: Frame, *arguments: object) -> object:
    lists = [_items("join up", argument) for argument in arguments]
    frame.budget.build(sum(map(len, lists)))
    return [item for items in lists for item in items] or Nil()


def _flatten(frame: Frame, value: object) -> object:
    flat: list[object] = []
    _pour(frame, _items("flatten", value), flat, 0)
    return flat


def _pour(frame: Frame, items: list[object], flat: list[object], depth: int) -> None:
    if depth > MAX_VALUE_DEPTH:
        raise ExpressionError(f"flatten takes no lists nested deeper than {MAX_VALUE_DEPTH}")
    for item in items:
        frame.budget.build(1)
        frame.budget.step()
        if isinstance(item, list):
            _pour(frame, item, flat, depth + 1)
        else:
            flat.append(item)


def sort_key(frame: Frame) -> Callable[[object], Any]:
    """Return the key that sorts values as `<` orders them; what `<` refuses, the sort refuses."""

    def compare(left: object, right: object) -> int:
        frame.budget.step()
        if less(left, right, frame.budget):
            return -1
        return 1 if less(right, left, frame.budget) else 0

    return cmp_to_key(compare)


def descends(order: object) -> bool:
    """Return whether `desc` and not `asc` is asked for. Raises a fault for anything else."""
    if to_text(order) not in ("asc", "desc"):
        raise ExpressionError("the order is neither asc nor desc")
    return order == "desc"


def _sort(frame: Frame, value: object, order: object = "asc") -> object:
    descending = descends(order)
    if type(value) not in _SORTABLE:
        return Nil()
    assert isinstance(value, list)
    frame.budget.build(len(value))
    return sorted(value, key=sort_key(frame), reverse=descending)


def _bound(value: object) -> int:
    """Return a bound of a sequence, nil counting as zero."""
    if value is None:
        return 0
    if not is_int(value):
        raise ExpressionError(f"sequence takes an int, not {type_name(value)}")
    return to_int(value)


def sequence(frame: Frame, start: object, stop: object) -> object:
    """Return the ints from `start` up to, not including, `stop`."""
    first, last = _bound(start), _bound(stop)
    frame.budget.build(max(0, last - first))
    return Ints(range(first, last))


ARRAYS: dict[str, Callable[..., object]] = {
    "len": _len,
    "first": _at_end(0),
    "last": _at_end(-1),
    "get": _get,
    "take": _take,
    "keys": _keys,
    "values": _values,
    "toPairs": _to_pairs,
    "fromPairs": _from_pairs,
    "reverse": _reverse,
    "uniq": _uniq,
    "concat": _concat,
    "flatten": _flatten,
    "sort": _sort,
}
