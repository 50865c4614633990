"""The handlers of a subscription, many side by side."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from shared.broker.deliveries import DeliveryBase
from shared.broker.port import DeliveryHandler
from shared.supervision import Tasks

log = structlog.get_logger(__name__)

REQUEUE_DELAY = 1.0
"""Seconds before a delivery that its handler left unsettled goes back, so that a poor one does not
spin."""


class HandlerPool:
    """Runs `handler` on each loan it is given and sees that none stays unsettled."""

    def __init__(self, name: str, handler: DeliveryHandler) -> None:
        self._name = name
        self._handler = handler
        self._tasks = Tasks()
        self._closing = asyncio.Event()

    def start(self, loan: DeliveryBase) -> None:
        """Handle `loan` in a task of its own."""
        self._tasks.start(self._handle(loan), f"handle {self._name}")

    async def finish(self) -> None:
        """Wait until the handlers that run have ended; what they leave unsettled goes back at
        once."""
        self._closing.set()
        await self._tasks.finish()

    async def cancel(self) -> None:
        """Cancel the handlers that run, and wait for them to end."""
        self._closing.set()
        await self._tasks.cancel()

    async def _handle(self, loan: DeliveryBase) -> None:
        try:
            await self._handler(loan)
        except Exception:
            log.exception("a handler failed; its message is delivered again", queue=self._name)
        if loan.open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REQUEUE_DELAY):
                    await self._closing.wait()
            await loan.requeue()
