"""Filters, whose reader may need less than the whole list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from shared.expressions.compilation.code import Code, CompiledCode, Frame, LoopCall, Sieve, guarded
from shared.expressions.errors import ExpressionError
from shared.expressions.limits import ELEMENT_BYTES
from shared.expressions.operations.operators import to_bool
from shared.expressions.static_types import StaticType
from shared.expressions.values.kinds import is_map, type_name
from shared.expressions.values.strings import to_bytes


def body_of(loop: LoopCall) -> CompiledCode:
    """Return what a loop evaluates for each element: the element itself where nothing is given."""
    return loop.body.run if loop.body is not None else current


def compile_filter(loop: LoopCall, shape: StaticType) -> Code:
    """Return the code of a `filter`; one over another filter goes through the list once."""
    inner = loop.collection.sieve
    if inner is not None and inner.made is None:
        conditions = (*inner.conditions, body_of(loop))
        sieve = Sieve(inner.collection, conditions, inner.cost + loop.cost, loop.position)
    else:
        sieve = Sieve(loop.collection.run, (body_of(loop),), loop.cost, loop.position)
    return Code(shape, guarded(loop.position, _sifted(sieve)), sieve=sieve)


def mapped(code: Code, loop: LoopCall) -> Code:
    """Return a `map` over a filter, as one sieve that makes what it keeps."""
    inner = loop.collection.sieve
    if inner is None or inner.made is not None:
        return code
    sieve = Sieve(
        inner.collection, inner.conditions, inner.cost + loop.cost, loop.position, body_of(loop)
    )
    return Code(code.shape, guarded(loop.position, _sifted(sieve)), sieve=sieve)


def _passing(
    sieve: Sieve, walk: Callable[..., Iterator[object]]
) -> Callable[[Frame], Iterator[object]]:
    def passes(frame: Frame) -> object:
        return all(to_bool(condition(frame)) for condition in sieve.conditions)

    made = sieve.made or current

    def run(frame: Frame) -> Iterator[object]:
        for passed in walk(frame, sieve.collection(frame), passes, sieve.cost):
            if passed:
                yield made(frame)

    return run


def gathered(frame: Frame, values: Iterator[object]) -> list[object]:
    """Return the values as a list, each counted before the next is made."""
    take = frame.budget.take
    made: list[object] = []
    for value in values:
        take(ELEMENT_BYTES)
        made.append(value)
    return made


def _sifted(sieve: Sieve) -> CompiledCode:
    passing = _passing(sieve, forwards)

    def run(frame: Frame) -> object:
        return gathered(frame, passing(frame))

    return run


def sifted_end(sieve: Sieve, index: int, *, must: bool) -> CompiledCode:
    """Return the first (0) or last (-1) of what a sieve keeps, looking no further; nil if there is none, or
    a fault where there `must` be one."""
    passing = _passing(sieve, forwards if index == 0 else backwards)

    def run(frame: Frame) -> object:
        for item in passing(frame):
            return item
        if must:
            raise ExpressionError("index out of range: nothing passes the filter")
        return None

    return run


def sifted_count(sieve: Sieve) -> CompiledCode:
    """Return how many elements a sieve keeps, making nothing of them."""
    passing = _passing(
        Sieve(sieve.collection, sieve.conditions, sieve.cost, sieve.position, lambda _: None),
        forwards,
    )
    return lambda frame: sum(1 for _ in passing(frame))


_HOLE = object()
"""Stands for the elements of a map, which can be counted but not looked at."""
_BEYOND = object()
"""Stands for the first element of an empty list."""


def elements_of(frame: Frame, value: object) -> Sequence[object]:
    """Return what a loop goes through: the elements of a list, the bytes of a text. Raises a fault else."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        frame.budget.write(len(value), value)
        data = to_bytes(value)
        frame.budget.build(len(data))
        return list(data)
    if is_map(value):
        frame.budget.build(len(value))  # type: ignore[arg-type] # a map has a length
        return [_HOLE] * len(value)  # type: ignore[arg-type] # a map has a length
    raise ExpressionError(f"a loop goes through a list, not {type_name(value)}")


def current(frame: Frame) -> object:
    """Return the element that `#` stands for."""
    item = frame.item
    if item is _HOLE:
        raise ExpressionError("a loop goes through a list, not a map")
    if item is _BEYOND:
        raise ExpressionError("index out of range: the list is empty")
    return item


def before(frame: Frame, elements: Sequence[object], run: CompiledCode) -> object:
    """Return what an argument besides the predicate gives: to it, `#` is the first element already."""
    saved = frame.item, frame.index, frame.acc
    frame.item, frame.index, frame.acc = elements[0] if elements else _BEYOND, 0, None
    value = run(frame)
    frame.item, frame.index, frame.acc = saved
    return value


def turns(
    frame: Frame, items: Sequence[object], body: CompiledCode, cost: int, order: Sequence[int]
) -> Iterator[object]:
    """Yield what the body gives for each element, which is the current one meanwhile."""
    saved = frame.item, frame.index
    try:
        for index in order:
            frame.budget.step(cost)
            frame.item, frame.index = items[index], index
            yield body(frame)
    finally:
        frame.item, frame.index = saved


def forwards(frame: Frame, value: object, body: CompiledCode, cost: int) -> Iterator[object]:
    """Yield what the body gives for each element from the first on."""
    items = elements_of(frame, value)
    return turns(frame, items, body, cost, range(len(items)))


def backwards(frame: Frame, value: object, body: CompiledCode, cost: int) -> Iterator[object]:
    """Yield what the body gives for each element from the last back."""
    items = elements_of(frame, value)
    return turns(frame, items, body, cost, range(len(items) - 1, -1, -1))
