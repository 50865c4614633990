"""One expression, from text to value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from random import Random

import msgspec

from shared.expressions.compilation.code import CompiledCode, Frame
from shared.expressions.compilation.compiler import FUNCTION_NAMES, compile_tree
from shared.expressions.compilation.inference import Scope
from shared.expressions.errors import ExpressionError, limit_error
from shared.expressions.grammar.names import Names, names_in_tree
from shared.expressions.grammar.nodes import SyntaxNode
from shared.expressions.grammar.parser import parse
from shared.expressions.limits import PATTERN_STEPS, Budget
from shared.expressions.results import adopt
from shared.expressions.static_types import StaticType, shape_of
from shared.expressions.values.moments import Time
from shared.expressions.values.strings import adopted

_CACHED_LENGTH = 1_024
"""Characters of the longest expression that is kept compiled (so that the cache stays small)."""
_CACHED = 512
"""Expressions kept."""
_MATCHES = "matches"
"""The operator whose right side, where it is written out, is a regular expression to be compiled beforehand."""

Known = tuple[tuple[str, StaticType], ...]


class Parsed(msgspec.Struct, frozen=True):
    """A parsed expression and the names it speaks of."""

    tree: SyntaxNode
    names: Names


def _parsed(text: str, hidden: frozenset[str]) -> Parsed:
    tree = parse(text, FUNCTION_NAMES - hidden)
    return Parsed(tree, names_in_tree(tree))


def _compiled(text: str, hidden: frozenset[str], known: Known, closed: bool) -> CompiledCode:
    try:
        return compile_tree(parsed(text, hidden).tree, Scope(dict(known), closed=closed))
    except RecursionError:
        raise limit_error("the expression is nested too deeply").within(text) from None
    except ExpressionError as error:
        raise error.within(text) from None


_cached_parsed = lru_cache(_CACHED)(_parsed)
_cached_compiled = lru_cache(_CACHED)(_compiled)


def parsed(text: str, hidden: frozenset[str] = frozenset()) -> Parsed:
    """Return the expression parsed; a call of a name in `hidden` is not one of the language's functions,
    because the scope means something else by it. Raises a `syntax` or `limit` fault."""
    return (_cached_parsed if len(text) <= _CACHED_LENGTH else _parsed)(text, hidden)


def compiled(text: str, hidden: frozenset[str], known: Known, *, closed: bool) -> CompiledCode:
    """Return the expression compiled for a scope whose values have the `known` shapes. Raises any fault
    that can be seen before it runs."""
    return (_cached_compiled if len(text) <= _CACHED_LENGTH else _compiled)(
        text, hidden, known, closed
    )


def check_expression(text: str, budget: Budget) -> None:
    """Refuses an expression that cannot work whatever the scope holds: one that is none, calls an
    unknown function or a known one wrongly. Raises the fault. The regular expressions in it, which are
    compiled, are taken out of `budget`."""
    budget.step(PATTERN_STEPS * text.count(_MATCHES))
    compiled(adopted(text), frozenset(), (), closed=False)


class Evaluation:
    """A scope at an instant, in which expressions are evaluated, all out of one budget.

    `now` (by default the present) and `seed` (by default any) decide what `now()` and `randomInt()`
    give, so that the same evaluation gives the same again. `budget` may be shared with other evaluations.
    """

    def __init__(
        self,
        scope: Mapping[str, object],
        *,
        now: datetime | None = None,
        seed: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._scope = scope
        self._adopted: dict[str, object] = {}
        self._now = Time.of(now or datetime.now(UTC))
        self._seed = seed
        self._random = Random(seed)
        self.budget = budget or Budget()
        self._hidden = FUNCTION_NAMES.intersection(scope)

    def begin(self) -> None:
        """Begin another template: chance gives the same in each, whatever the others ask of it."""
        if self._seed is not None:
            self._random.seed(self._seed)

    def value(self, text: str) -> object:
        """Return the raw value of one expression. Raises an ExpressionError."""
        text = adopted(text)
        try:
            self.budget.parse(len(text))
            self.budget.step(PATTERN_STEPS * text.count(_MATCHES))
            run = self._compiled(text)
            return run(Frame(self._adopted, self._now, self._random, self.budget))
        except ExpressionError as error:
            raise error.within(text) from None
        except RecursionError:
            raise limit_error("the expression goes too deep into a value").within(text) from None

    def _compiled(self, text: str) -> CompiledCode:
        names = parsed(text, self._hidden).names
        for name in self._scope if names.whole else names.top.intersection(self._scope):
            if name not in self._adopted:
                self._adopted[name] = adopt(name, self._scope[name], self.budget)
        known = tuple(
            (name, shape_of(self._adopted[name]))
            for name in sorted(names.top & self._adopted.keys())
        )
        return compiled(text, self._hidden, known, closed=True)
