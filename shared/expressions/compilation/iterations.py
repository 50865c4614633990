"""Going through a list, element by element."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shared.expressions.compilation.code import Run
from shared.expressions.errors import ExpressionError
from shared.expressions.frame import Frame
from shared.expressions.values.kinds import is_map, type_name
from shared.expressions.values.strings import to_bytes

_HOLE = object()
"""Stands for the elements of a map, which can be counted but not looked at."""
_BEYOND = object()
"""Stands for the first element of an empty list."""


def elements_of(value: object) -> Sequence[object]:
    """What a loop goes through: the elements of a list, the bytes of a text. Raises a fault else."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return list(to_bytes(value))
    if is_map(value):
        return [_HOLE] * len(value)  # type: ignore[arg-type] # a map has a length
    raise ExpressionError(f"a loop goes through a list, not {type_name(value)}")


def current(frame: Frame) -> object:
    """The element that `#` stands for."""
    item = frame.item
    if item is _HOLE:
        raise ExpressionError("a loop goes through a list, not a map")
    if item is _BEYOND:
        raise ExpressionError("index out of range: the list is empty")
    return item


def before(frame: Frame, elements: Sequence[object], run: Run) -> object:
    """What an argument besides the predicate gives: to it, `#` is the first element already."""
    saved = frame.item, frame.index, frame.acc
    frame.item, frame.index, frame.acc = elements[0] if elements else _BEYOND, 0, None
    value = run(frame)
    frame.item, frame.index, frame.acc = saved
    return value


def turns(
    frame: Frame, items: Sequence[object], body: Run, cost: int, order: Sequence[int]
) -> Iterator[object]:
    """What the body gives for each element, which is the current one meanwhile."""
    saved = frame.item, frame.index
    try:
        for index in order:
            frame.budget.step(cost)
            frame.item, frame.index = items[index], index
            yield body(frame)
    finally:
        frame.item, frame.index = saved


def forwards(frame: Frame, value: object, body: Run, cost: int) -> Iterator[object]:
    """What the body gives for each element from the first on."""
    items = elements_of(value)
    return turns(frame, items, body, cost, range(len(items)))


def backwards(frame: Frame, value: object, body: Run, cost: int) -> Iterator[object]:
    """What the body gives for each element from the last back."""
    items = elements_of(value)
    return turns(frame, items, body, cost, range(len(items) - 1, -1, -1))
