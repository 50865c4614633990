"""Work whose time has come: retries whose delay is over, and intents that nobody followed."""

from __future__ import annotations

from coordinator.due.overdue_intents import OverdueIntents
from coordinator.effects import FlowDriver
from coordinator.engine import repairs
from shared.supervision import Loop

RELEASED_EVERY = 0.25
TAKEN_UP_EVERY = 1.0
"""Seconds between looks."""


class DueWork:
    """Takes up what is due, in loops of its own: what takes long there keeps the sweeper from nothing."""

    def __init__(self, driver: FlowDriver) -> None:
        self._driver = driver
        self.overdue = OverdueIntents(driver)
        self._loops = (
            Loop("delays", self.release, every=RELEASED_EVERY),
            Loop("due", self.overdue.look, every=TAKEN_UP_EVERY, woken_by=self.overdue.more),
        )

    def start(self) -> None:
        """Start taking up what is due, in the background."""
        for loop in self._loops:
            loop.start()

    async def close(self) -> None:
        """Take nothing up any more, cutting short what is under way."""
        for loop in self._loops:
            await loop.close()
        await self.overdue.close()

    async def release(self) -> None:
        """Let retries go on whose delay is over."""
        await self._driver.handle(repairs.release_delayed())
