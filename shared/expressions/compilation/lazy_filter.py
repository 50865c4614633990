"""Filters, whose reader may need less than the whole list."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shared.expressions.compilation.code import Code, Loop, Run, Sieve, guarded
from shared.expressions.compilation.iterations import backwards, current, forwards
from shared.expressions.errors import ExpressionError
from shared.expressions.frame import Frame
from shared.expressions.operations.operators import to_bool
from shared.expressions.static_types import Shape


def body_of(loop: Loop) -> Run:
    """What a loop evaluates for each element: the element itself where nothing is given."""
    return loop.body.run if loop.body is not None else current


def compile_filter(loop: Loop, shape: Shape) -> Code:
    """The code of a `filter`; one over another filter goes through the list once."""
    inner = loop.collection.sieve
    if inner is not None and inner.made is None:
        conditions = (*inner.conditions, body_of(loop))
        sieve = Sieve(inner.collection, conditions, inner.cost + loop.cost, loop.position)
    else:
        sieve = Sieve(loop.collection.run, (body_of(loop),), loop.cost, loop.position)
    return Code(shape, guarded(loop.position, _sifted(sieve)), sieve=sieve)


def mapped(code: Code, loop: Loop) -> Code:
    """A `map` over a filter, as one sieve that makes what it keeps."""
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


def _sifted(sieve: Sieve) -> Run:
    passing = _passing(sieve, forwards)

    def run(frame: Frame) -> object:
        kept = list(passing(frame))
        frame.budget.build(len(kept))
        return kept

    return run


def sifted_end(sieve: Sieve, index: int, *, must: bool) -> Run:
    """The first (0) or last (-1) of what a sieve keeps, looking no further; nil if there is none, or
    a fault where there `must` be one."""
    passing = _passing(sieve, forwards if index == 0 else backwards)

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
        forwards,
    )
    return lambda frame: sum(1 for _ in passing(frame))
