"""What a subscriber of events has yet to hear: in order, one at a time, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

import structlog

from shared.broker.deliveries import DeliveryBase
from shared.broker.port import DeliveryHandler
from shared.model.queues import EVENTS
from shared.supervision import Loop, waiting

log = structlog.get_logger(__name__)

EVENT_BACKLOG = 10_000
"""Events kept for a subscriber that is slower than they come; past that the oldest is dropped."""


class EventDelivery(DeliveryBase):
    """An event as a delivery: settling it has no effect."""

    __slots__ = ()

    def __init__(self, body: bytes) -> None:
        super().__init__(EVENTS, body, 0, {})

    async def _acknowledge(self) -> None:
        """Nothing: it was never on loan."""

    async def _give_back(self) -> None:
        """Nothing: an event is heard once."""

    async def _copy_to_dead(self, headers: Mapping[str, str]) -> None:
        """Nothing: what nobody understands of an event, nobody misses."""


class EventFanout:
    """Hands events to `handler`, in the order they came. Make it inside a running loop."""

    def __init__(self, handler: DeliveryHandler) -> None:
        self._handler = handler
        self._waiting: deque[bytes] = deque(maxlen=EVENT_BACKLOG)
        self._arrived = asyncio.Event()
        self._loop = Loop("handle events", self._run)
        self._loop.start()

    def offer(self, body: bytes) -> None:
        """Add an event; never blocks."""
        self._waiting.append(body)
        self._arrived.set()

    async def close(self) -> None:
        """Stop; what was not yet handled is dropped."""
        await self._loop.close()

    async def _run(self) -> None:
        while True:
            with waiting():
                await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._hand_over(self._waiting.popleft())

    async def _hand_over(self, body: bytes) -> None:
        try:
            await self._handler(EventDelivery(body))
        except Exception:
            log.exception("a handler of events failed; the event is dropped")
