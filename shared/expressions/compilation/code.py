"""What an expression is compiled to: closures that take the frame of one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import msgspec

from shared.expressions.errors import ExpressionError
from shared.expressions.limits import Budget
from shared.expressions.static_types import StaticType
from shared.expressions.values.moments import Time


class Frame:
    """One evaluation: the scope, what loops and `let` have set, the time, chance, and the budget."""

    __slots__ = ("acc", "budget", "index", "item", "now", "random", "scope", "variables")

    def __init__(
        self, scope: Mapping[str, object], now: Time, random: Random, budget: Budget
    ) -> None:
        self.scope = scope
        self.now = now
        self.random = random
        self.budget = budget
        self.variables: dict[str, object] = {}
        self.item: object = None
        self.index = 0
        self.acc: object = None


CompiledCode = Callable[[Frame], object]
MISSING = object()
"""Stands where there is no literal."""


class Code(msgspec.Struct):
    """A compiled part: what is known of its value, and how to get it.

    `literal` is its value where that is written out (or follows from what is), else MISSING.
    `sieve` is there for a filter, whose reader may need less than the whole list.
    """

    shape: StaticType
    run: CompiledCode
    literal: object = MISSING
    sieve: Sieve | None = None


class Sieve(msgspec.Struct, frozen=True):
    """A filter in parts: what it goes through, what must hold, what it makes of what passes."""

    collection: CompiledCode
    conditions: tuple[CompiledCode, ...]
    cost: int
    position: int
    made: CompiledCode | None = None


class LoopCall(msgspec.Struct, frozen=True):
    """A loop's call: its name and place, what it goes through, what it evaluates, and what it takes
    besides. `cost` counts the steps of one turn."""

    name: str
    position: int
    collection: Code
    body: Code | None
    extra: Code | None
    cost: int


def constant(shape: StaticType, value: object) -> Code:
    """Return the code of a value that is written out."""
    return Code(shape, lambda _: value, value)


def guarded(position: int, run: CompiledCode) -> CompiledCode:
    """Return `run`, its faults placed at `position` unless they are placed already."""

    def place(frame: Frame) -> object:
        try:
            return run(frame)
        except ExpressionError as error:
            raise error.at(position) from None

    return place
