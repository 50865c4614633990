"""Waiting for a datastore that is not there yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.errors import StoreUnavailable

T = TypeVar("T")

FIRST_DELAY = 0.5
"""Seconds."""
LONGEST_DELAY = 10.0
"""Seconds."""

log = structlog.get_logger(__name__)


async def until_available(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what `attempt` gives, trying for ever while it raises `StoreUnavailable`, and saying
    so in the log.
    """
    delay = FIRST_DELAY
    while True:
        try:
            return await attempt()
        except StoreUnavailable as error:
            log.warning("waiting for the datastore", reason=str(error), retry_in_seconds=delay)
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
