"""The broker of a single process, what standalone runs on, and its queues: priorities, loans, consumers, expiry.

It keeps everything that the port promises except that nothing outlives the process; the store has the truth.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping

import msgspec

from shared.broker.deliveries import DeliveryBase, EventFanout, HandlerPool, check_size
from shared.broker.port import Delivery, DeliveryHandler, QueueInfo
from shared.broker.spill import KeptBody, Spill
from shared.errors import BrokerUnavailable
from shared.model.queues import ALWAYS_THERE, DEAD_QUEUE, MAX_PRIORITY, QueueKind, queue_kind


class QueuedMessage(msgspec.Struct, frozen=True, gc=False):
    """What rests in a queue. `deadline`: clock's seconds after which it is dropped unless it is on
    loan."""

    body: KeptBody
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


class MemoryBroker:
    """A `Broker` inside this process.

    `node_expiry`: seconds that a node's own queue stays without a consumer. `clock` gives monotonic
    seconds.
    """

    def __init__(self, *, node_expiry: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._node_expiry = node_expiry
        self._clock = clock
        self._queues: dict[str, MemoryQueue] = {}
        self._subscriptions: set[MemorySubscription] = set()
        self._slots: set[MemorySlot] = set()
        self._feeds: set[EventFanout] = set()
        self._callbacks: list[Callable[[bool], None]] = []
        self._running = False
        self._spill = Spill()

    async def start(self) -> None:
        """Make the queues that are always there, and tell who asked to hear of a connection."""
        self._running = True
        for name in ALWAYS_THERE:
            self._declared(name)
        for callback in self._callbacks:
            callback(True)

    async def close(self) -> None:
        """End all consumers and their handlers; deliveries on loan are lost to their holders."""
        self._running = False
        for subscription in tuple(self._subscriptions):
            await subscription.abandon()
            await subscription.crew.cancel()
        for slot in tuple(self._slots):
            await slot.close()
        for feed in tuple(self._feeds):
            await feed.close()
        for queue in self._queues.values():
            queue.discard()
        self._queues.clear()
        self._feeds.clear()
        self._spill.close()

    async def ping(self) -> None:
        """Return while it runs."""
        self._check_running()

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        priority: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Put `body` into `queue`, or drop it where that is the queue of a node that is gone."""
        self._check_running()
        if not 0 <= priority <= MAX_PRIORITY:
            raise ValueError(f"priority {priority} is not within 0 to {MAX_PRIORITY}")
        check_size(body)
        found = self._queues.get(queue)
        if found is None:
            if not self._kind(queue).creatable:
                return
            found = self._declared(queue)
        kept = self._spill.keep(body)
        found.put(QueuedMessage(kept, priority, headers or {}, found.deadline()))

    async def publish_event(self, body: bytes) -> None:
        """Offer `body` to every present subscriber of events."""
        for feed in self._feeds:
            feed.offer(body)

    async def subscribe_events(self, handler: DeliveryHandler) -> MemoryEvents:
        """Hear every event from now on, in order."""
        self._check_running()
        feed = EventFanout(handler)
        self._feeds.add(feed)
        return MemoryEvents(feed, self._feeds.discard)

    async def subscribe(
        self, queue: str, handler: DeliveryHandler, *, prefetch: int
    ) -> MemorySubscription:
        """Hand each delivery of `queue` to `handler`, up to `prefetch` unsettled ones at a time."""
        self._check_running()
        if prefetch < 1:
            raise ValueError("a prefetch is at least 1")
        subscription = MemorySubscription(self, queue, handler, prefetch)
        self._subscriptions.add(subscription)
        self._declared(queue).attach(subscription)
        return subscription

    async def slot(self, queue: str) -> MemorySlot:
        """Open a slot on `queue`; it consumes from its first `take` on."""
        self._check_running()
        self._declared(queue)
        slot = MemorySlot(self, queue)
        self._slots.add(slot)
        return slot

    async def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:  # noqa: ARG002  # it can list them
        """Return the figures of all queues, by name."""
        self._check_running()
        return [self._queues[name].info() for name in sorted(self._queues)]

    async def queue(self, name: str) -> QueueInfo | None:
        """Return the figures of one queue, or None."""
        self._check_running()
        found = self._queues.get(name)
        return None if found is None else found.info()

    async def ready(self, name: str) -> int | None:
        """Return how many messages are ready in a queue, or None."""
        found = await self.queue(name)
        return None if found is None else found.size

    async def delete_queue(self, name: str, *, unused: bool = False) -> bool:
        """Delete a queue and what is in it; its consumers, if any, have it declared again at
        once."""
        found = await self.queue(name)
        if found is None or (unused and (found.subscribers or found.unacked)):
            return False
        gone = self._queues.pop(name)
        consumers = gone.discard()
        for consumer in consumers:
            self._declared(name).attach(consumer)
        return True

    def on_connected(self, callback: Callable[[bool], None]) -> None:
        """Call `callback(True)` once, in `start`."""
        self._callbacks.append(callback)

    def attach(self, consumer: MemoryConsumer) -> None:
        """Begin, or go on, consuming."""
        self._check_running()
        self._declared(consumer.name).attach(consumer)

    def detach(self, consumer: MemoryConsumer) -> None:
        """Stop consuming; what is on loan stays so."""
        if consumer.source is not None:
            consumer.source.detach(consumer)

    def forget(self, consumer: MemoryConsumer) -> None:
        """Stop consuming for good."""
        self.detach(consumer)
        self._subscriptions.discard(consumer)
        self._slots.discard(consumer)

    def lend(
        self, queue: MemoryQueue, message: QueuedMessage, consumer: MemoryConsumer
    ) -> MemoryLoan:
        """Return `message` of `queue` as a delivery to `consumer`."""
        return MemoryLoan(self, queue, message, consumer)

    def _check_running(self) -> None:
        if not self._running:
            raise BrokerUnavailable("the broker of this process is not running")

    def _kind(self, name: str) -> QueueKind:
        return queue_kind(name, node_expiry=self._node_expiry)

    def _declared(self, name: str) -> MemoryQueue:
        found = self._queues.get(name)
        if found is None:
            found = MemoryQueue(name, self._kind(name), self._clock, self.lend, self._expire)
            self._queues[name] = found
        return found

    def _expire(self, queue: MemoryQueue) -> None:
        if self._queues.get(queue.name) is queue:
            del self._queues[queue.name]


class MemoryLoan(Recallable):
    """A message of a queue in memory, on loan."""

    __slots__ = ("_broker", "_consumer", "_message", "_source")

    def __init__(
        self,
        broker: MemoryBroker,
        source: MemoryQueue,
        message: QueuedMessage,
        consumer: MemoryConsumer,
    ) -> None:
        super().__init__(source.name, message.body.read(), message.priority, message.headers)
        self._broker = broker
        self._source = source
        self._message = message
        self._consumer = consumer

    def take_back(self) -> None:
        """Lose it: it goes to the head of its queue, for anyone."""
        if not self.lost:
            self.lose()
            self._end(requeue=True)

    async def _acknowledge(self) -> None:
        self._end(requeue=False)

    async def _give_back(self) -> None:
        self._end(requeue=True)

    async def _copy_to_dead(self, headers: Mapping[str, str]) -> None:
        await self._broker.publish(DEAD_QUEUE, self.body, headers=headers)

    def _end(self, *, requeue: bool) -> None:
        self._consumer.loans.pop(self, None)
        self._source.settled(self._message, requeue=requeue)
        self._consumer.settled()


class MemorySubscription(MemoryConsumer):
    """A `Subscription` on a queue in memory."""

    def __init__(
        self, broker: MemoryBroker, name: str, handler: DeliveryHandler, prefetch: int
    ) -> None:
        super().__init__(name)
        self._broker = broker
        self._prefetch = prefetch
        self.crew = HandlerPool(name, handler)

    @property
    def wants(self) -> bool:
        """Whether it may hold one more."""
        return len(self.loans) < self._prefetch

    def accept(self, loan: Recallable) -> None:
        """Start the handler."""
        self.crew.start(loan)

    async def close(self) -> None:
        """Stop consuming, wait for handlers that run; what they leave unsettled goes back."""
        self._broker.forget(self)
        await self.crew.finish()

    async def abandon(self) -> None:
        """Give back at once all that is on loan."""
        self._broker.forget(self)
        self.take_back_all()


class MemorySlot(MemoryConsumer):
    """A `Slot` on a queue in memory: it is given a message only while someone waits in `take`."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        super().__init__(name)
        self._broker = broker
        self._waiter: asyncio.Future[Recallable] | None = None

    @property
    def wants(self) -> bool:
        """Whether somebody waits, and nothing is on loan."""
        return self._waiter is not None and not self._waiter.done() and not self.loans

    def accept(self, loan: Recallable) -> None:
        """Hand it to who waits."""
        assert self._waiter is not None
        self._waiter.set_result(loan)

    async def take(self) -> Delivery:
        """Wait for the next delivery."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            self._broker.attach(self)
            return await self._waiter
        except asyncio.CancelledError:
            self._undo(self._waiter)
            raise
        finally:
            self._waiter = None

    @staticmethod
    def _undo(waiter: asyncio.Future[Recallable]) -> None:
        """Give back what was handed over to a `take` that was cancelled in the same moment."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().take_back()

    async def pause(self) -> None:
        """Stop consuming; the next `take` goes on."""
        self._broker.detach(self)

    async def close(self) -> None:
        """Stop consuming and give back what was not settled. Who waits in `take` is told
        `BrokerUnavailable`."""
        self._broker.forget(self)
        self.take_back_all()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(BrokerUnavailable(f"the slot on {self.name!r} was closed"))


class MemoryEvents:
    """A `Subscription` to events."""

    def __init__(self, feed: EventFanout, forget: Callable[[EventFanout], None]) -> None:
        self._feed = feed
        self._forget = forget

    async def close(self) -> None:
        """Hear no more."""
        self._forget(self._feed)
        await self._feed.close()

    async def abandon(self) -> None:
        """Hear no more."""
        await self.close()
