"""A loop that repeats some work and survives its failures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from shared.errors import HaulierError

log = structlog.get_logger(__name__)


class Ticker:
    """Calls `work` every `interval` seconds (give or take a tenth, so that coordinators do not march in step)."""

    def __init__(self, name: str, interval: float, work: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._interval = interval
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first call comes at once."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self) -> None:
        """End, cutting short what is under way: every work of a ticker may be cut anywhere."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._work()
            except HaulierError as error:
                log.info("timed work waits for its next turn", work=self._name, reason=str(error))
            except Exception:
                log.exception("timed work failed", work=self._name)
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.1))
