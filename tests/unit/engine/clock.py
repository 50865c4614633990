"""Time that a test sets."""

from __future__ import annotations

from pathlib import Path

from coordinator.store.sqlite import SqliteStore
from shared.model.documents import MICROS_PER_SECOND, Micros

START: Micros = 1_750_000_000 * MICROS_PER_SECOND


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now: Micros = START

    def advance(self, seconds: float) -> None:
        """Go on by `seconds`."""
        self.now += int(seconds * MICROS_PER_SECOND)


class ClockedStore(SqliteStore):
    """A real store, whose clock is the test's."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path)
        self.test_clock = clock

    def now(self) -> Micros:
        return self.test_clock.now
