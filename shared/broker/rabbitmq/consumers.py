"""Consumers: a channel and what is on loan through it, a worker's slot, and a subscription with handlers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic

from shared.broker.deliveries import DeliveryBase, HandlerPool
from shared.broker.port import Delivery, DeliveryHandler
from shared.broker.rabbitmq.connection import (
    ANSWERED_WITHIN,
    RabbitConnection,
    Session,
    close_channel,
)
from shared.broker.rabbitmq.declarations import (
    Interrupted,
    Retaking,
    interruptible,
    permitted,
)
from shared.errors import BrokerMisconfigured, BrokerUnavailable
from shared.model.queues import MAX_PRIORITY
from shared.supervision import Backoff

log = structlog.get_logger(__name__)


Bury = Callable[[bytes, Mapping[str, str]], Awaitable[None]]
"""Puts a body with its headers into `dead`, confirmed."""


class RabbitDelivery(DeliveryBase):
    """A delivery of RabbitMQ."""

    __slots__ = ("_tag", "_tap")

    def __init__(self, tap: RabbitConsumer, message: DeliveredMessage) -> None:
        properties = message.header.properties
        texts = {
            name: value
            for name, value in (properties.headers or {}).items()
            if isinstance(value, str)
        }
        super().__init__(tap.queue, message.body, _priority(properties.priority), texts)
        self._tap = tap
        self._tag = message.delivery_tag or 0

    async def _acknowledge(self) -> None:
        await self._tap.settle(self, self._tag, requeue=False)

    async def _give_back(self) -> None:
        await self._tap.settle(self, self._tag, requeue=True)

    async def _copy_to_dead(self, headers: Mapping[str, str]) -> None:
        await self._tap.bury(self.body, headers)


def _priority(given: int | None) -> int:
    """Other programs may send what is out of range."""
    return min(given or 0, MAX_PRIORITY)


class QueueSource:
    """Where taps are opened: a queue of a connection, and how what comes from it is buried."""

    def __init__(self, link: RabbitConnection, queue: str, bury: Bury) -> None:
        self.link = link
        self.queue = queue
        self.bury = bury


class RabbitConsumer:
    """One consumer on a channel of its own. `receive` is given each delivery; `stopped` is called
    when consumption ended without our doing: the queue was deleted, or the channel lost."""

    def __init__(
        self,
        source: QueueSource,
        session: Session,
        channel: Channel,
        receive: Callable[[RabbitDelivery], None],
        stopped: Callable[[], None],
    ) -> None:
        self.queue = source.queue
        self.bury = source.bury
        self.consuming = False
        self.ended = False
        """The channel is gone, and with it all that was on loan."""
        self._session = session
        self._channel = channel
        self._receive = receive
        self._stopped = stopped
        self._loans: set[RabbitDelivery] = set()
        self._tag: str | None = None
        channel.on_consumer_cancel_callbacks.add(self._cancelled_by_broker)
        channel.closing.add_done_callback(lambda _: self._end())

    @classmethod
    async def open(
        cls,
        source: QueueSource,
        prefetch: int,
        receive: Callable[[RabbitDelivery], None],
        stopped: Callable[[], None],
    ) -> RabbitConsumer:
        """Open a channel that lends at most `prefetch` at a time. Raises `Interrupted`,
        `TimeoutError`, and `BrokerUnavailable` when the connection is closed for good."""
        session = await source.link.session()
        channel = await session.channel(confirms=False)
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                with interruptible():
                    await channel.basic_qos(prefetch_count=prefetch)
        except BaseException:
            await close_channel(channel)
            raise
        return cls(source, session, channel, receive, stopped)

    async def consume(self) -> None:
        """Declare the queue and consume it. Raises `QueueMismatch`, `BrokerForbids`, `Interrupted`,
        `TimeoutError`."""
        await self._session.declare(self.queue)
        self._tag = None
        async with self._or_close():
            answer = await self._channel.basic_consume(self.queue, self._arrived)
        self._tag = answer.consumer_tag
        self.consuming = not self.ended

    async def cancel(self) -> None:
        """Stop consuming; what is on loan stays so. Raises `Interrupted`, `TimeoutError`."""
        tag, self._tag = self._tag, None
        if self.consuming and tag is not None:
            self.consuming = False
            async with self._or_close():
                await self._channel.basic_cancel(tag)

    async def close(self) -> None:
        """Close the channel; what is on loan is lost to its holders and goes back."""
        self._end()
        await close_channel(self._channel)

    @asynccontextmanager
    async def _or_close(self) -> AsyncIterator[None]:
        """After a call that did not end well nobody knows whether we consume: begin anew then."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                with interruptible(), permitted():
                    yield
        except BaseException:
            self._session.forget(self.queue)
            await self.close()
            raise

    async def settle(self, loan: RabbitDelivery, tag: int, *, requeue: bool) -> None:
        """Tell RabbitMQ of the end of a loan; where it can't be told it takes it back by itself."""
        try:
            with interruptible():
                if requeue:
                    await self._channel.basic_nack(tag, requeue=True, wait=False)
                else:
                    await self._channel.basic_ack(tag, wait=False)
        except (Interrupted, TimeoutError):
            pass
        self._loans.discard(loan)

    async def _arrived(self, message: DeliveredMessage) -> None:
        loan = RabbitDelivery(self, message)
        if self.ended:
            loan.lose()
            return
        self._loans.add(loan)
        self._receive(loan)

    def _cancelled_by_broker(self, _: Basic.Cancel) -> None:
        """Stop consuming: the queue was deleted, or its node went, without an error."""
        self._session.forget(self.queue)
        self.consuming = False
        self._tag = None
        self._stopped()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self.consuming = False
        for loan in tuple(self._loans):
            loan.lose()
        self._loans.clear()
        self._stopped()


class RabbitSlot:
    """A `Slot` on a queue of RabbitMQ. `forget` is called when it ends."""

    def __init__(
        self,
        source: QueueSource,
        backoff: Backoff,
        forget: Callable[[RabbitSlot], None],
    ) -> None:
        self._source = source
        self._backoff = backoff
        self._forget = forget
        self._tap: RabbitConsumer | None = None
        self._inbox: list[RabbitDelivery] = []
        self._changed = asyncio.Event()
        self._closed = False

    async def take(self) -> Delivery:
        """Wait for the next delivery, for ever. Raises `BrokerUnavailable` once it is closed."""
        self._backoff.reset()
        while True:
            self._changed.clear()
            if (loan := self._next()) is not None:
                return loan
            if self._closed:
                raise BrokerUnavailable(f"the slot on {self._source.queue!r} was closed")
            try:
                await self._consume()
            except (Interrupted, TimeoutError, BrokerMisconfigured) as error:
                self._say(error)
                await asyncio.sleep(self._backoff.next())
            else:
                self._backoff.reset()
                await self._changed.wait()

    async def pause(self) -> None:
        """Stop consuming; a delivery that nobody has taken goes back."""
        if self._tap is not None:
            # What fails closes the channel: then nothing is consumed either.
            with contextlib.suppress(Interrupted, TimeoutError):
                await self._tap.cancel()
        while (loan := self._next()) is not None:
            await loan.requeue()

    async def close(self) -> None:
        """Close the channel: what was not settled goes back. Who waits in `take` is told."""
        self._closed = True
        self._forget(self)
        if self._tap is not None:
            await self._tap.close()
        self._changed.set()

    async def _consume(self) -> None:
        if self._tap is None or self._tap.ended:
            self._tap = await RabbitConsumer.open(self._source, 1, self._arrived, self._changed.set)
        if self._closed:
            await self._tap.close()
        elif not self._tap.consuming:
            await self._tap.consume()

    def _arrived(self, loan: RabbitDelivery) -> None:
        self._inbox.append(loan)
        self._changed.set()

    def _next(self) -> RabbitDelivery | None:
        """Return the delivery that nobody has taken, unless it was lost meanwhile."""
        while self._inbox:
            loan = self._inbox.pop(0)
            if not loan.lost:
                return loan
        return None

    def _say(self, error: BaseException) -> None:
        say = log.error if isinstance(error, BrokerMisconfigured) else log.info
        say(
            "a slot tries to consume again",
            queue=self._source.queue,
            reason=str(error) or "no answer",
        )


class RabbitSubscription:
    """A `Subscription` on a queue of RabbitMQ. `forget` is called when it ends."""

    def __init__(
        self,
        source: QueueSource,
        handler: DeliveryHandler,
        prefetch: int,
        backoff: Backoff,
        forget: Callable[[RabbitSubscription], None],
    ) -> None:
        self.crew = HandlerPool(source.queue, handler)
        self._source = source
        self._prefetch = prefetch
        self._forget = forget
        self._tap: RabbitConsumer | None = None
        self._stopped = asyncio.Event()
        self._upkeep = Retaking(source.queue, self._consume, backoff)

    async def start(self) -> None:
        """Consume. Raises `QueueMismatch`, `BrokerForbids`, `BrokerUnavailable`."""
        await self._upkeep.start()

    async def close(self) -> None:
        """Stop consuming, wait for handlers that run; what they leave unsettled goes back."""
        self._forget(self)
        await self._upkeep.stop()
        if self._tap is not None:
            with contextlib.suppress(Interrupted, TimeoutError):
                await self._tap.cancel()
        await self.crew.finish()
        await self._close_tap()

    async def abandon(self) -> None:
        """Close the channel: all that is on loan goes back at once."""
        self._forget(self)
        await self._upkeep.stop()
        await self._close_tap()

    async def _consume(self, had: Callable[[], None]) -> None:
        await self._close_tap()
        self._tap = await RabbitConsumer.open(
            self._source, self._prefetch, self.crew.start, self._stopped.set
        )
        while not self._tap.ended:
            self._stopped.clear()
            await self._tap.consume()
            had()
            if self._tap.consuming:
                await self._stopped.wait()

    async def _close_tap(self) -> None:
        tap, self._tap = self._tap, None
        if tap is not None:
            await tap.close()
