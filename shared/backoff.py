"""Growing delays between tries."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays in seconds: `first`, then each `factor` times the one before, never above `longest`.

    Each is spread by up to ±`jitter` of itself (0 to 1), so that those who wait for the same thing
    don't all ask at once. `chance` gives numbers from 0 to 1; a simulation passes a seeded one."""

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        factor: float = 2.0,
        jitter: float = 0.2,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first = min(first, longest)
        self._longest = longest
        self._factor = factor
        self._jitter = jitter
        self._chance = chance
        self._next = self._first

    def next(self) -> float:
        """Return the next delay, in seconds."""
        delay = self._next
        self._next = min(delay * self._factor, self._longest)
        return min(delay * (1 + self._jitter * (2 * self._chance() - 1)), self._longest)

    def reset(self) -> None:
        """Start over with the first delay."""
        self._next = self._first
