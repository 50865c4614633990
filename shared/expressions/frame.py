"""One evaluation while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from shared.expressions.limits import Budget
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
