"""A clock that follows another one and never runs backwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.errors import StoreUnavailable
from shared.model.documents import Micros
from shared.supervision import Backoff

CATCH_UP = 2
"""How many times slower than real time it runs while it is ahead of the clock that it follows."""


class FollowingClock:
    """Gives the time of `source`; where that was set back, runs at half speed until it has caught
    up.
    """

    def __init__(
        self, source: Callable[[], Micros], elapsed: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._source = source
        self._elapsed = elapsed
        self._last: Micros = 0
        self._ahead_since = 0
        self._ahead_from: Micros = 0
        self._ahead = False

    def now(self) -> Micros:
        """Return the time, never less than before."""
        wanted = self._source()
        if wanted >= self._last:
            self._last = wanted
            self._ahead = False
            return wanted
        elapsed = self._elapsed()
        if not self._ahead:
            self._ahead, self._ahead_since, self._ahead_from = True, elapsed, self._last
        slow = (elapsed - self._ahead_since) // (1000 * CATCH_UP)
        self._last = max(self._last, self._ahead_from + slow)
        return self._last


def wall_clock() -> Micros:
    """Return this machine's time."""
    return time.time_ns() // 1000


_T = TypeVar("_T")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 10.0
"""Seconds between tries to reach the datastore."""

log = structlog.get_logger(__name__)


async def until_available(attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Return what `attempt` gives, trying for ever while it raises `StoreUnavailable`, and saying
    so in the log.
    """
    backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
    while True:
        try:
            return await attempt()
        except StoreUnavailable as error:
            delay = backoff.next()
            log.warning(
                "waiting for the datastore", reason=str(error), retry_in_seconds=round(delay, 1)
            )
        await asyncio.sleep(delay)
