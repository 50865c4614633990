"""The functions that evaluate an expression for each element of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shared.expressions.compilation.code import Code, Run, Sieve, guarded
from shared.expressions.compilation.shapes import BOOL, GROUPS, INT, LIST, UNKNOWN, Shape, list_of
from shared.expressions.faults import ExpressionError, name_fault
from shared.expressions.frame import Frame
from shared.expressions.functions.arrays import descends, sort_key
from shared.expressions.operations.operators import add, to_bool
from shared.expressions.values.kinds import Table, is_map, type_name
from shared.expressions.values.strings import to_bytes

_HOLE = object()
"""Stands for the elements of a map, which can be counted but not looked at."""
_BEYOND = object()
"""Stands for the first element of an empty list."""


@dataclass(slots=True, frozen=True)
class Loop:
    """A loop's call: its name and place, what it goes through, what it evaluates, and what it takes
    besides. `cost` counts the steps of one turn."""

    name: str
    position: int
    collection: Code
    body: Code | None
    extra: Code | None
    cost: int


def _elements(value: object) -> Sequence[object]:
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


def _before(frame: Frame, elements: Sequence[object], run: Run) -> object:
    """What an argument besides the predicate gives: to it, `#` is the first element already."""
    saved = frame.item, frame.index, frame.acc
    frame.item, frame.index, frame.acc = elements[0] if elements else _BEYOND, 0, None
    value = run(frame)
    frame.item, frame.index, frame.acc = saved
    return value


def _turns(
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


def _forwards(frame: Frame, value: object, body: Run, cost: int) -> Iterator[object]:
    items = _elements(value)
    return _turns(frame, items, body, cost, range(len(items)))


def _backwards(frame: Frame, value: object, body: Run, cost: int) -> Iterator[object]:
    items = _elements(value)
    return _turns(frame, items, body, cost, range(len(items) - 1, -1, -1))


# What each loop gives, before anything runs


def _check(loop: Loop) -> Shape:
    collection, body = loop.collection.shape, loop.body.shape if loop.body else None
    if not collection.maybe("list"):
        raise name_fault(f"{loop.name} goes through a list, not {collection}", loop.position)
    if body is not None and body.kind == "nil":
        raise name_fault(f"what {loop.name} evaluates gives nothing", loop.position)
    if loop.name in _TESTS and body is not None and not body.maybe("bool"):
        raise name_fault(f"what {loop.name} evaluates gives {body}, not a boolean", loop.position)
    return _GIVES[loop.name](collection, body)


def _held(collection: Shape) -> Shape:
    return UNKNOWN if collection.is_unknown else collection.items()


def _summed(collection: Shape, body: Shape | None) -> Shape:
    if body is None:
        return _held(collection)
    return Shape(body.kind, body.form)


_TESTS = frozenset(
    [
        "all",
        "none",
        "any",
        "one",
        "filter",
        "count",
        "find",
        "findLast",
        "findIndex",
        "findLastIndex",
    ]
)
_GIVES: dict[str, Callable[[Shape, Shape | None], Shape]] = {
    **dict.fromkeys(["all", "none", "any", "one"], lambda _, __: BOOL),
    **dict.fromkeys(["count", "findIndex", "findLastIndex"], lambda _, __: INT),
    **dict.fromkeys(["find", "findLast"], lambda collection, _: _held(collection)),
    "filter": lambda collection, _: LIST if collection.is_unknown else list_of(collection.items()),
    "map": lambda _, body: list_of(body or UNKNOWN),
    "sum": _summed,
    "groupBy": lambda _, __: GROUPS,
    "sortBy": lambda collection, _: collection,
    "reduce": lambda _, body: body or UNKNOWN,
}


# The code


def compile_loop(loop: Loop) -> Code:
    """The code of a loop. Raises a `name` fault where it cannot be one."""
    shape = _check(loop)
    if loop.name == "filter":
        return _filter(loop, shape)
    return Code(shape, guarded(loop.position, _BUILDERS[loop.name](loop)))


def _body(loop: Loop) -> Run:
    return loop.body.run if loop.body is not None else current


def _quantifier(*, stop_at: bool, gives: bool) -> Callable[[Loop], Run]:
    """`all`, `any` and `none`: the first element of some answer decides."""

    def build(loop: Loop) -> Run:
        collection, body, cost = loop.collection.run, _body(loop), loop.cost

        def run(frame: Frame) -> object:
            for answer in _forwards(frame, collection(frame), body, cost):
                if to_bool(answer) is stop_at:
                    return gives
            return not gives

        return run

    return build


def _count(loop: Loop) -> Run:
    collection, body, cost = loop.collection.run, _body(loop), loop.cost
    return lambda frame: sum(map(to_bool, _forwards(frame, collection(frame), body, cost)))


def _one(loop: Loop) -> Run:
    count = _count(loop)
    return lambda frame: count(frame) == 1


def _map(loop: Loop) -> Run:
    collection, body, cost = loop.collection.run, _body(loop), loop.cost

    def run(frame: Frame) -> object:
        made = list(_forwards(frame, collection(frame), body, cost))
        frame.budget.build(len(made))
        return made

    return run


def _sum(loop: Loop) -> Run:
    collection, body, cost = loop.collection.run, _body(loop), loop.cost

    def run(frame: Frame) -> object:
        total: object = 0
        for value in _forwards(frame, collection(frame), body, cost):
            total = add(value, total, frame.budget)
        return total

    return run


def _finder(turns: Callable[..., Iterator[object]], *, index: bool) -> Callable[[Loop], Run]:
    """`find` and its like: the first (or last) element that passes, or where it stands, or nil."""

    def build(loop: Loop) -> Run:
        collection, body, cost = loop.collection.run, _body(loop), loop.cost

        def run(frame: Frame) -> object:
            for answer in turns(frame, collection(frame), body, cost):
                if to_bool(answer):
                    return frame.index if index else current(frame)
            return None

        return run

    return build


def _group(loop: Loop) -> Run:
    collection, body, cost = loop.collection.run, _body(loop), loop.cost

    def run(frame: Frame) -> object:
        groups = Table(groups=True)
        for key in _forwards(frame, collection(frame), body, cost):
            item = current(frame)
            frame.budget.build(1)
            if key in groups:
                group = groups[key]
                assert isinstance(group, list)
                group.append(item)
            else:
                groups.put(key, [item])
        return groups

    return run


def _sort(loop: Loop) -> Run:
    collection, body, cost = loop.collection.run, _body(loop), loop.cost
    order = loop.extra.run if loop.extra is not None else lambda _: "asc"

    def run(frame: Frame) -> object:
        elements = _elements(collection(frame))
        descending = descends(_before(frame, elements, order))
        ranked = [
            (value, current(frame))
            for value in _turns(frame, elements, body, cost, range(len(elements)))
        ]
        frame.budget.build(len(ranked))
        key = sort_key(frame)
        ranked.sort(key=lambda pair: key(pair[0]), reverse=descending)
        return [item for _, item in ranked]

    return run


def _reduce(loop: Loop) -> Run:
    collection, body, cost = loop.collection.run, _body(loop), loop.cost
    start = loop.extra.run if loop.extra is not None else None

    def run(frame: Frame) -> object:
        elements = _elements(collection(frame))
        saved = frame.acc
        if start is not None:
            total, first = _before(frame, elements, start), 0
        elif elements:
            total, first = _before(frame, elements, current), 1
        else:
            raise ExpressionError("reduce of an empty list needs a value to start with")
        frame.acc = total
        for value in _turns(frame, elements, body, cost, range(first, len(elements))):
            frame.acc = value
        total, frame.acc = frame.acc, saved
        return total

    return run


_BUILDERS: dict[str, Callable[[Loop], Run]] = {
    "all": _quantifier(stop_at=False, gives=False),
    "any": _quantifier(stop_at=True, gives=True),
    "none": _quantifier(stop_at=True, gives=False),
    "one": _one,
    "count": _count,
    "map": _map,
    "sum": _sum,
    "find": _finder(_forwards, index=False),
    "findIndex": _finder(_forwards, index=True),
    "findLast": _finder(_backwards, index=False),
    "findLastIndex": _finder(_backwards, index=True),
    "groupBy": _group,
    "sortBy": _sort,
    "reduce": _reduce,
}


# Filters, whose reader may stop early


def _filter(loop: Loop, shape: Shape) -> Code:
    inner = loop.collection.sieve
    if inner is not None and inner.made is None:
        conditions = (*inner.conditions, _body(loop))
        sieve = Sieve(inner.collection, conditions, inner.cost + loop.cost, loop.position)
    else:
        sieve = Sieve(loop.collection.run, (_body(loop),), loop.cost, loop.position)
    return Code(shape, guarded(loop.position, _sifted(sieve)), sieve=sieve)


def mapped(code: Code, loop: Loop) -> Code:
    """A `map` over a filter, as one sieve that makes what it keeps."""
    inner = loop.collection.sieve
    if inner is None or inner.made is not None:
        return code
    sieve = Sieve(
        inner.collection, inner.conditions, inner.cost + loop.cost, loop.position, _body(loop)
    )
    return Code(code.shape, guarded(loop.position, _sifted(sieve)), sieve=sieve)


def _passing(
    sieve: Sieve, turns: Callable[..., Iterator[object]]
) -> Callable[[Frame], Iterator[object]]:
    def passes(frame: Frame) -> object:
        return all(to_bool(condition(frame)) for condition in sieve.conditions)

    made = sieve.made or current

    def run(frame: Frame) -> Iterator[object]:
        for passed in turns(frame, sieve.collection(frame), passes, sieve.cost):
            if passed:
                yield made(frame)

    return run


def _sifted(sieve: Sieve) -> Run:
    passing = _passing(sieve, _forwards)

    def run(frame: Frame) -> object:
        kept = list(passing(frame))
        frame.budget.build(len(kept))
        return kept

    return run


def sifted_end(sieve: Sieve, index: int, *, must: bool) -> Run:
    """The first (0) or last (-1) of what a sieve keeps, looking no further; nil if there is none, or
    a fault where there `must` be one."""
    passing = _passing(sieve, _forwards if index == 0 else _backwards)

    def run(frame: Frame) -> object:
        for item in passing(frame):
            return item
        if must:
            raise ExpressionError("index out of range: nothing passes the filter")
        return None

    return run


def sifted_count(sieve: Sieve) -> Run:
    """How many elements a sieve keeps, making nothing of them."""
    passing = _passing(
        Sieve(sieve.collection, sieve.conditions, sieve.cost, sieve.position, lambda _: None),
        _forwards,
    )
    return lambda frame: sum(1 for _ in passing(frame))
