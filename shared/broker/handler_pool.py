"""The handlers of a subscription, many side by side."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from shared.broker.deliveries import DeliveryBase
from shared.broker.port import DeliveryHandler

log = structlog.get_logger(__name__)

REQUEUE_DELAY = 1.0
"""Seconds before a delivery that its handler left unsettled goes back, so that a poor one does not
spin."""


class HandlerPool:
    """Runs `handler` on each loan it is given and sees that none stays unsettled."""

    def __init__(self, name: str, handler: DeliveryHandler) -> None:
        self._name = name
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def start(self, loan: DeliveryBase) -> None:
        """Handle `loan` in a task of its own."""
        task = asyncio.create_task(self._handle(loan), name=f"handle {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until the handlers that run have ended; what they leave unsettled goes back at
        once."""
        self._closing.set()
        await self._wait(set(self._tasks))

    async def cancel(self) -> None:
        """Cancel the handlers that run, and wait for them to end."""
        self._closing.set()
        for task in self._others():
            task.cancel()
        await self._wait(self._others())

    def _others(self) -> set[asyncio.Task[None]]:
        # A handler may itself close its subscription: it must not wait for its own end.
        return self._tasks - {asyncio.current_task()}

    async def _wait(self, tasks: set[asyncio.Task[None]]) -> None:
        waited = tasks & self._others()
        if waited:
            await asyncio.wait(waited)

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
