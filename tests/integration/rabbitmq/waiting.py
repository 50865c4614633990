"""Waiting for the thing, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.broker.port import Delivery

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds: the machine is shared, and RabbitMQ's figures lag behind."""


async def within(awaitable: Awaitable[T], seconds: float = PATIENCE) -> T:
    """Wait for it, at most that long."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def eventually(
    look: Callable[[], Awaitable[T]], good: Callable[[T], bool], seconds: float = PATIENCE
) -> T:
    """Look until it is good."""
    deadline = time.monotonic() + seconds
    while not good(seen := await look()):
        assert time.monotonic() < deadline, f"still {seen!r}"
        await asyncio.sleep(0.05)
    return seen


class Inbox:
    """A handler that keeps what it is given: settled at once, or held until it is lost."""

    def __init__(self, *, ack: bool = True) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self._ack = ack

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.put_nowait(delivery)
        if self._ack:
            await delivery.ack()
        else:
            await delivery.wait_lost()

    async def next(self) -> Delivery:
        return await within(self.deliveries.get())

    async def bodies(self, count: int) -> list[bytes]:
        return [(await self.next()).body for _ in range(count)]
