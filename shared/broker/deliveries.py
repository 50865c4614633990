"""What all adapters share in handing messages over: their size, deliveries, pools of handlers, and events in order."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from enum import Enum, auto

import structlog
from cachetools import LRUCache

from shared.broker.port import LARGEST_MESSAGE, Delivery, DeliveryHandler
from shared.ids import derived_id
from shared.model.queues import EVENTS
from shared.supervision import Loop, Tasks, waiting

log = structlog.get_logger(__name__)


REASON = "x-reason"
"""Header of a message in `dead`: why nobody could handle it."""
ORIGIN = "x-queue"
"""Header of a message in `dead`: the queue it was taken from."""

_LONGEST_REASON = 4_000
"""Characters. A header must fit the broker's frame together with all others."""
_LARGEST_HEADERS = 32_000
"""Bytes of a message's own headers that are kept with it in `dead`."""

_HEADER = 6
"""Bytes that a header takes besides its name and its text."""


def check_size(body: bytes) -> None:
    """Raise `ValueError` for a message's body that is too large for any broker."""
    if len(body) > LARGEST_MESSAGE:
        raise ValueError(f"a message of {len(body)} bytes: at most {LARGEST_MESSAGE} go")


def headers_size(headers: Mapping[str, str]) -> int:
    """Return the bytes that headers take in a broker's frame."""
    return sum(len(f"{name}{value}".encode()) + _HEADER for name, value in headers.items())


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
        kept = self.headers if headers_size(self.headers) < _LARGEST_HEADERS else {}
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


UNKNOWN_KIND_TRIES = 30
UNKNOWN_KIND_PAUSE = 1.0
"""How often a process gives back a message of a kind that it doesn't know, and how many seconds apart: a newer process
may take it."""


class Tries:
    """How often this process gave each message back, so that one that nobody can handle is buried in the end."""

    def __init__(self) -> None:
        self._counts: LRUCache[str, int] = LRUCache(10_000)

    async def unknown(self, delivery: Delivery, reason: str) -> bool:
        """Give back a message of a kind that only a newer version knows. Return whether it was buried instead."""
        limit, pause = UNKNOWN_KIND_TRIES, UNKNOWN_KIND_PAUSE
        return await self.give_back(delivery, reason, limit=limit, pause=pause)

    async def give_back(self, delivery: Delivery, reason: str, *, limit: int, pause: float) -> bool:
        """Requeue a delivery after `pause` seconds; the `limit`-th time, bury it with `reason`. Return whether it was
        buried."""
        key = derived_id(delivery.queue, delivery.body)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count < limit:
            await asyncio.sleep(pause)
            await delivery.requeue()
            return False
        del self._counts[key]
        log.warning("a message was buried", queue=delivery.queue, reason=reason)
        await delivery.bury(reason)
        return True


REQUEUE_DELAY = 1.0
"""Seconds before a delivery that its handler left unsettled goes back, so that a poor one does not
spin."""


class HandlerPool:
    """Runs `handler` on each loan it is given and sees that none stays unsettled."""

    def __init__(self, name: str, handler: DeliveryHandler) -> None:
        self._name = name
        self._handler = handler
        self._tasks = Tasks()
        self._context = copy_context()
        """The consumer's: in one process with the publisher, a handler is to know nothing of that one's."""
        self._closing = asyncio.Event()

    def start(self, loan: DeliveryBase) -> None:
        """Handle `loan` in a task of its own."""
        self._tasks.start(self._handle(loan), f"handle {self._name}", self._context)

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


EVENT_BACKLOG = 10_000
EVENT_BACKLOG_BYTES = 32 * 1024 * 1024
"""Events kept for a subscriber that is slower than they come; past that the oldest are dropped."""


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


class EventBacklog:
    """Hands events to `take` one after another, in the order they came; those that wait are bounded. Make it inside a
    running loop."""

    def __init__(self, take: Callable[[bytes], Awaitable[None]], name: str) -> None:
        self._take = take
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._loop = Loop(name, self._run)
        self._loop.start()

    def offer(self, body: bytes) -> None:
        """Add an event; never blocks."""
        self._waiting.append(body)
        self._bytes += len(body)
        while len(self._waiting) > EVENT_BACKLOG or self._bytes > EVENT_BACKLOG_BYTES:
            self._next()
        self._arrived.set()

    def drop(self) -> None:
        """Forget those that wait."""
        self._waiting.clear()
        self._bytes = 0

    async def close(self) -> None:
        """Stop; what was not yet handed on is dropped."""
        await self._loop.close()

    def _next(self) -> bytes:
        body = self._waiting.popleft()
        self._bytes -= len(body)
        return body

    async def _run(self) -> None:
        while True:
            with waiting():
                await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._take(self._next())


class EventFanout(EventBacklog):
    """Hands events to `handler`."""

    def __init__(self, handler: DeliveryHandler) -> None:
        self._handler = handler
        super().__init__(self._hand_over, "handle events")

    async def _hand_over(self, body: bytes) -> None:
        try:
            await self._handler(EventDelivery(body))
        except Exception:
            log.exception("a handler of events failed; the event is dropped")
