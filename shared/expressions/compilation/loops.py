"""The functions that evaluate an expression for each element of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shared.expressions.compilation.code import Code, CompiledCode, Frame, LoopCall, guarded
from shared.expressions.compilation.lazy_filter import (
    backwards,
    before,
    body_of,
    compile_filter,
    current,
    elements_of,
    forwards,
    gathered,
    turns,
)
from shared.expressions.errors import ExpressionError, name_error
from shared.expressions.functions.arrays import descends, sort_key
from shared.expressions.limits import ENTRY_ELEMENTS
from shared.expressions.operations.operators import add, to_bool
from shared.expressions.static_types import BOOL, GROUPS, INT, LIST, UNKNOWN, StaticType, list_of
from shared.expressions.values.kinds import Table

# What each loop gives, before anything runs


def _check(loop: LoopCall) -> StaticType:
    collection, body = loop.collection.shape, loop.body.shape if loop.body else None
    if not collection.maybe("list"):
        raise name_error(f"{loop.name} goes through a list, not {collection}", loop.position)
    if body is not None and body.kind == "nil":
        raise name_error(f"what {loop.name} evaluates gives nothing", loop.position)
    if loop.name in _TESTS and body is not None and not body.maybe("bool"):
        raise name_error(f"what {loop.name} evaluates gives {body}, not a boolean", loop.position)
    return _GIVES[loop.name](collection, body)


def _held(collection: StaticType) -> StaticType:
    return UNKNOWN if collection.is_unknown else collection.items()


def _summed(collection: StaticType, body: StaticType | None) -> StaticType:
    if body is None:
        return _held(collection)
    return StaticType(body.kind, body.form)


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
_GIVES: dict[str, Callable[[StaticType, StaticType | None], StaticType]] = {
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


def compile_loop(loop: LoopCall) -> Code:
    """Return the code of a loop. Raises a `name` fault where it cannot be one."""
    shape = _check(loop)
    if loop.name == "filter":
        return compile_filter(loop, shape)
    return Code(shape, guarded(loop.position, _BUILDERS[loop.name](loop)))


def _quantifier(*, stop_at: bool, gives: bool) -> Callable[[LoopCall], CompiledCode]:
    """`all`, `any` and `none`: the first element of some answer decides."""

    def build(loop: LoopCall) -> CompiledCode:
        collection, body, cost = loop.collection.run, body_of(loop), loop.cost

        def run(frame: Frame) -> object:
            for answer in forwards(frame, collection(frame), body, cost):
                if to_bool(answer) is stop_at:
                    return gives
            return not gives

        return run

    return build


def _count(loop: LoopCall) -> CompiledCode:
    collection, body, cost = loop.collection.run, body_of(loop), loop.cost
    return lambda frame: sum(map(to_bool, forwards(frame, collection(frame), body, cost)))


def _one(loop: LoopCall) -> CompiledCode:
    count = _count(loop)
    return lambda frame: count(frame) == 1


def _map(loop: LoopCall) -> CompiledCode:
    collection, body, cost = loop.collection.run, body_of(loop), loop.cost

    def run(frame: Frame) -> object:
        return gathered(frame, forwards(frame, collection(frame), body, cost))

    return run


def _sum(loop: LoopCall) -> CompiledCode:
    collection, body, cost = loop.collection.run, body_of(loop), loop.cost

    def run(frame: Frame) -> object:
        total: object = 0
        for value in forwards(frame, collection(frame), body, cost):
            total = add(value, total, frame.budget)
        return total

    return run


def _finder(
    walk: Callable[..., Iterator[object]], *, index: bool
) -> Callable[[LoopCall], CompiledCode]:
    """`find` and its like: the first (or last) element that passes, or where it stands, or nil."""

    def build(loop: LoopCall) -> CompiledCode:
        collection, body, cost = loop.collection.run, body_of(loop), loop.cost

        def run(frame: Frame) -> object:
            for answer in walk(frame, collection(frame), body, cost):
                if to_bool(answer):
                    return frame.index if index else current(frame)
            return None

        return run

    return build


def _group(loop: LoopCall) -> CompiledCode:
    collection, body, cost = loop.collection.run, body_of(loop), loop.cost

    def run(frame: Frame) -> object:
        groups = Table(groups=True)
        for key in forwards(frame, collection(frame), body, cost):
            item = current(frame)
            frame.budget.build(1 if key in groups else 2 * ENTRY_ELEMENTS)
            if key in groups:
                group = groups[key]
                assert isinstance(group, list)
                group.append(item)
            else:
                groups.put(key, [item])
        return groups

    return run


def _sort(loop: LoopCall) -> CompiledCode:
    collection, body, cost = loop.collection.run, body_of(loop), loop.cost
    order = loop.extra.run if loop.extra is not None else lambda _: "asc"

    def run(frame: Frame) -> object:
        elements = elements_of(frame, collection(frame))
        descending = descends(before(frame, elements, order))
        frame.budget.build(ENTRY_ELEMENTS * len(elements))
        ranked = [
            (value, current(frame))
            for value in turns(frame, elements, body, cost, range(len(elements)))
        ]
        key = sort_key(frame)
        ranked.sort(key=lambda pair: key(pair[0]), reverse=descending)
        return [item for _, item in ranked]

    return run


def _reduce(loop: LoopCall) -> CompiledCode:
    collection, body, cost = loop.collection.run, body_of(loop), loop.cost
    start = loop.extra.run if loop.extra is not None else None

    def run(frame: Frame) -> object:
        elements = elements_of(frame, collection(frame))
        saved = frame.acc
        if start is not None:
            total, first = before(frame, elements, start), 0
        elif elements:
            total, first = before(frame, elements, current), 1
        else:
            raise ExpressionError("reduce of an empty list needs a value to start with")
        frame.acc = total
        for value in turns(frame, elements, body, cost, range(first, len(elements))):
            frame.acc = value
        total, frame.acc = frame.acc, saved
        return total

    return run


_BUILDERS: dict[str, Callable[[LoopCall], CompiledCode]] = {
    "all": _quantifier(stop_at=False, gives=False),
    "any": _quantifier(stop_at=True, gives=True),
    "none": _quantifier(stop_at=True, gives=False),
    "one": _one,
    "count": _count,
    "map": _map,
    "sum": _sum,
    "find": _finder(forwards, index=False),
    "findIndex": _finder(forwards, index=True),
    "findLast": _finder(backwards, index=False),
    "findLastIndex": _finder(backwards, index=True),
    "groupBy": _group,
    "sortBy": _sort,
    "reduce": _reduce,
}
