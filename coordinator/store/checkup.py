"""Asks a datastore whether it works, no more often than it helps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.errors import StoreUnavailable
from shared.supervision import start_task

WITHIN = 2.0
"""Seconds that a datastore has to answer."""

HOLDS = 1.0
"""Seconds for which an answer holds."""


class Checkup:
    """One question at a time, however many ask; whoever asks within `HOLDS` seconds of a question shares its answer.

    `question` returns if the datastore reads and writes, and raises what keeps it from that."""

    def __init__(self, question: Callable[[], Awaitable[None]]) -> None:
        self._question = question
        self._asked: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    async def __call__(self) -> None:
        """Return if the datastore works; raise `StoreUnavailable` where it does not, or not within `WITHIN`."""
        now = asyncio.get_running_loop().time()
        if self._asked is None or (self._asked.done() and now - self._asked_at >= HOLDS):
            self._asked, self._asked_at = start_task(self._ask(), "ping the datastore"), now
            self._asked.add_done_callback(_heard)
        await asyncio.shield(self._asked)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(WITHIN):
                await self._question()
        except TimeoutError:
            raise StoreUnavailable(
                f"the datastore did not read and write within {WITHIN:g} s"
            ) from None


def _heard(asked: asyncio.Task[None]) -> None:
    """Take note of an error that those who asked no longer wait for."""
    if not asked.cancelled():
        asked.exception()
