"""A message on loan: what `Delivery` promises, whatever the broker."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto

import structlog
from cachetools import LRUCache

from shared.broker.port import Delivery
from shared.ids import derived_id

log = structlog.get_logger(__name__)

REASON = "x-reason"
"""Header of a message in `dead`: why nobody could handle it."""
ORIGIN = "x-queue"
"""Header of a message in `dead`: the queue it was taken from."""

_LONGEST_REASON = 4_000
"""Characters. A header must fit the broker's frame together with all others."""
_LARGEST_HEADERS = 32_000
"""Characters of a message's own headers that are kept with it in `dead`."""


class _State(Enum):
    OPEN = auto()
    BURYING = auto()
    SETTLED = auto()
    LOST = auto()


class DeliveryBase(ABC):
    """Base of every adapter's `Delivery`: settled at most once, and never after it was lost."""

    __slots__ = ("_lost_event", "_state", "body", "headers", "priority", "queue")

    def __init__(self, queue: str, body: bytes, priority: int, headers: Mapping[str, str]) -> None:
        self.queue = queue
        self.body = body
        self.priority = priority
        self.headers = headers
        self._state = _State.OPEN
        self._lost_event: asyncio.Event | None = None

    @property
    def lost(self) -> bool:
        """True once the broker has taken it back."""
        return self._state is _State.LOST

    @property
    def open(self) -> bool:
        """True while it is neither settled nor lost."""
        return self._state is _State.OPEN

    async def wait_lost(self) -> None:
        """Return when `lost` becomes true."""
        if self._lost_event is None:
            self._lost_event = asyncio.Event()
        if not self.lost:
            await self._lost_event.wait()

    def lose(self) -> None:
        """Say that the broker has taken it back; nothing where it was settled before."""
        if self._state in (_State.OPEN, _State.BURYING):
            self._state = _State.LOST
            if self._lost_event is not None:
                self._lost_event.set()

    async def ack(self) -> None:
        """Tell the broker that it is handled and may be forgotten."""
        if self.open:
            await self._settle(self._acknowledge)

    async def requeue(self) -> None:
        """Give it back, to be delivered again to anyone."""
        if self.open:
            await self._settle(self._give_back)

    async def bury(self, reason: str) -> None:
        """Move it to `dead`. Raises `BrokerUnavailable`, and is still on loan, where that
        failed."""
        if not self.open:
            return
        self._state = _State.BURYING
        note = {REASON: reason[:_LONGEST_REASON], ORIGIN: self.queue}
        kept = self.headers if _size(self.headers) < _LARGEST_HEADERS else {}
        try:
            await self._copy_to_dead({**kept, **note})
        finally:
            if self._state is _State.BURYING:
                self._state = _State.OPEN
        await self.ack()

    async def _settle(self, say: Callable[[], Awaitable[None]]) -> None:
        self._state = _State.SETTLED
        try:
            await say()
        except BaseException:
            # Cancelled before the broker was told: it is still on loan.
            self._state = _State.OPEN
            raise

    @abstractmethod
    async def _acknowledge(self) -> None: ...

    @abstractmethod
    async def _give_back(self) -> None: ...

    @abstractmethod
    async def _copy_to_dead(self, headers: Mapping[str, str]) -> None: ...


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items())


UNKNOWN_KIND_TRIES = 30
UNKNOWN_KIND_PAUSE = 1.0
"""How often a process gives back a message of a kind that it doesn't know, and how many seconds apart: a newer process
may take it."""


class Tries:
    """How often this process gave each message back, so that one that nobody can handle is buried in the end."""

    def __init__(self) -> None:
        self._counts: LRUCache[str, int] = LRUCache(10_000)

    async def unknown(self, delivery: Delivery, reason: str) -> None:
        """Give back a message of a kind that only a newer version knows."""
        await self.give_back(delivery, reason, limit=UNKNOWN_KIND_TRIES, pause=UNKNOWN_KIND_PAUSE)

    async def give_back(self, delivery: Delivery, reason: str, *, limit: int, pause: float) -> None:
        """Requeue a delivery after `pause` seconds; the `limit`-th time, bury it with `reason`."""
        key = derived_id(delivery.queue, delivery.body)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count < limit:
            await asyncio.sleep(pause)
            await delivery.requeue()
            return
        del self._counts[key]
        log.warning("a message was buried", queue=delivery.queue, reason=reason)
        await delivery.bury(reason)
