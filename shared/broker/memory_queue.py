"""A queue in memory: levels of priority, loans, consumers, expiry."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from shared.broker.deliveries import DeliveryBase
from shared.broker.port import QueueInfo
from shared.model.queues import MAX_PRIORITY, QueueKind


class QueuedMessage(msgspec.Struct, frozen=True, gc=False):
    """What rests in a queue. `deadline`: clock's seconds after which it is dropped unless it is on
    loan."""

    body: bytes
    priority: int
    headers: Mapping[str, str]
    deadline: float | None


class Recallable(DeliveryBase):
    """A loan that its queue can take back."""

    __slots__ = ()

    @abstractmethod
    def take_back(self) -> None:
        """Lose it: it goes to the head of its queue, for anyone."""


class MemoryConsumer(ABC):
    """Who takes from a queue: it says whether it wants one more, and is given it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source: MemoryQueue | None = None
        self.loans: dict[Recallable, None] = {}

    @property
    @abstractmethod
    def wants(self) -> bool:
        """Whether it can be given one more."""

    @abstractmethod
    def accept(self, loan: Recallable) -> None:
        """Take `loan`; it is in `loans` already."""

    def settled(self) -> None:
        """Hear that one of its loans has ended."""
        if self.source is not None:
            self.source.consider(self)

    def take_back_all(self) -> None:
        """Lose all that is on loan: it lies in its queue as it did before."""
        for loan in reversed(tuple(self.loans)):
            loan.take_back()


class MemoryQueue:
    """One queue: highest priority first, first in first out within one; served to consumers in
    turn.

    `lend` makes a loan; `expired` is called once the queue has been without a consumer for as long
    as its kind says.
    """

    def __init__(
        self,
        name: str,
        kind: QueueKind,
        clock: Callable[[], float],
        lend: Callable[[MemoryQueue, QueuedMessage, MemoryConsumer], Recallable],
        expired: Callable[[MemoryQueue], None],
    ) -> None:
        self.name = name
        self._kind = kind
        self._clock = clock
        self._lend = lend
        self._expired = expired
        levels = MAX_PRIORITY + 1 if kind.prioritised else 1
        self._levels: tuple[deque[QueuedMessage], ...] = tuple(deque() for _ in range(levels))
        self._filled = 0
        """A bit for each level that is not empty: the highest is found without looking at all."""
        self._size = 0
        self._unacked = 0
        self._consumers: dict[MemoryConsumer, None] = {}
        self._idle: dict[MemoryConsumer, None] = {}
        self._gone = False
        self._expiry: asyncio.TimerHandle | None = None
        self._watch()

    def info(self) -> QueueInfo:
        """Return its figures now."""
        self._drop_late()
        return QueueInfo(self.name, self._size, len(self._consumers), self._unacked)

    def deadline(self) -> float | None:
        """Return when a message put in now is dropped."""
        ttl = self._kind.message_ttl
        return None if ttl is None else self._clock() + ttl

    def put(self, message: QueuedMessage) -> None:
        """Add at the end, and hand out."""
        self._drop_late()
        self._level(message).append(message)
        self._size += 1
        self._serve()

    def settled(self, message: QueuedMessage, *, requeue: bool) -> None:
        """Hear the end of a loan; with `requeue`, `message` goes to the head of its level."""
        self._unacked -= 1
        if requeue and not self._gone:
            self._level(message).appendleft(message)
            self._size += 1
            self._serve()

    def attach(self, consumer: MemoryConsumer) -> None:
        """Add a consumer, if it is not there, and give it what it wants."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if consumer.source is not self:
            consumer.source = self
            self._consumers[consumer] = None
        self.consider(consumer)

    def consider(self, consumer: MemoryConsumer) -> None:
        """Look whether `consumer` wants one more."""
        if consumer.wants:
            self._idle[consumer] = None
            self._serve()
        else:
            self._idle.pop(consumer, None)

    def detach(self, consumer: MemoryConsumer) -> None:
        """Remove a consumer. What it has on loan stays so."""
        consumer.source = None
        self._idle.pop(consumer, None)
        self._consumers.pop(consumer, None)
        self._watch()

    def discard(self) -> list[MemoryConsumer]:
        """Drop everything, for good; return who consumed it."""
        self._gone = True
        consumers = list(self._consumers)
        for consumer in consumers:
            consumer.source = None
        self._consumers.clear()
        self._idle.clear()
        if self._expiry is not None:
            self._expiry.cancel()
        return consumers

    def _level(self, message: QueuedMessage) -> deque[QueuedMessage]:
        number = message.priority if self._kind.prioritised else 0
        self._filled |= 1 << number
        return self._levels[number]

    def _serve(self) -> None:
        while self._idle and self._size:
            self._drop_late()
            if not self._size:
                return
            consumer = next(iter(self._idle))
            del self._idle[consumer]
            if consumer.wants:
                self._hand_to(consumer)

    def _hand_to(self, consumer: MemoryConsumer) -> None:
        loan = self._lend(self, self._pop(), consumer)
        self._unacked += 1
        consumer.loans[loan] = None
        consumer.accept(loan)
        if consumer.wants:
            self._idle[consumer] = None

    def _pop(self) -> QueuedMessage:
        number = self._filled.bit_length() - 1
        level = self._levels[number]
        message = level.popleft()
        if not level:
            self._filled &= ~(1 << number)
        self._size -= 1
        return message

    def _drop_late(self) -> None:
        """Drop what is past its deadline. Only queues without priorities have deadlines, and they
        rise."""
        if self._kind.message_ttl is None:
            return
        level, now = self._levels[0], self._clock()
        while level and level[0].deadline is not None and level[0].deadline <= now:
            self._pop()

    def _watch(self) -> None:
        if self._kind.expires is None or self._consumers or self._gone or self._expiry is not None:
            return
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(self._kind.expires, self._expire)

    def _expire(self) -> None:
        self.discard()
        self._expired(self)
