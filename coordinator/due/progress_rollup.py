"""Updates the progress of composites and sub-jobs some time after a task below them has moved."""

from __future__ import annotations

from coordinator.effects import FlowDriver
from coordinator.engine import progress
from shared.supervision import Loop

_EVERY = 0.7
"""Seconds between looks: what is above a task follows within 2 s of the task's own word."""

ROUNDS = 40
"""Levels that a move goes up in one look: sixteen composites, each perhaps a job of its own."""


class ProgressRollup:
    """Brings the progress of what stands above moved tasks up to date. A crash loses a look; the next move makes
    another."""

    def __init__(self, driver: FlowDriver) -> None:
        self._driver = driver
        self._loop = Loop("growth", self._look, every=_EVERY)

    def start(self) -> None:
        """Start to roll progress up, in the background."""
        self._loop.start()

    async def close(self) -> None:
        """Stop, cutting a round short."""
        await self._loop.close()

    async def _look(self) -> None:
        for _ in range(ROUNDS):
            moved = self._driver.take_moved()
            if not moved:
                return
            for task_id in moved:
                await self._driver.handle(progress.grown(task_id))
