"""Events: a topic, to which each subscriber binds a queue of its own that goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from shared.broker.deliveries import EventBacklog, EventFanout
from shared.broker.port import DeliveryHandler
from shared.broker.rabbitmq.connection import ANSWERED_WITHIN, RabbitConnection, close_channel
from shared.broker.rabbitmq.declarations import (
    Interrupted,
    Retaking,
    interruptible,
    permitted,
)
from shared.broker.rabbitmq.publisher import PublishChannel, retry_delays
from shared.errors import BrokerMisconfigured, BrokerUnavailable
from shared.model.queues import EVENTS, events_queue
from shared.supervision import Backoff

_KEY = "event"
_EVERY_KEY = "#"


class EventSender:
    """Sends events in order, in the background: nobody waits for one, and none is sent twice.

    What comes while RabbitMQ is away is dropped. Make it inside a running loop."""

    def __init__(self, link: RabbitConnection) -> None:
        self._link = link
        self._lane = PublishChannel(link, confirms=False, delays=retry_delays())
        self._backlog = EventBacklog(self._send, "send events")

    def offer(self, body: bytes) -> None:
        """Have `body` sent soon."""
        if self._link.present is not None:
            self._backlog.offer(body)

    async def close(self) -> None:
        """Send no more."""
        await self._backlog.close()

    async def _send(self, body: bytes) -> None:
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                session, channel = await self._lane.channel()
                await session.declare_events()
                await session.unblocked()
                with interruptible():
                    await channel.basic_publish(body, exchange=EVENTS, routing_key=_KEY)
        except (Interrupted, TimeoutError, BrokerUnavailable, BrokerMisconfigured):
            # What waited is as old: who listens reads the state anew when it hears nothing.
            self._backlog.drop()
            if (present := self._link.present) is not None:
                present.forget_events()


class RabbitEvents:
    """A `Subscription` to events, with an exclusive queue that goes with its connection.

    `forget` is called when it ends."""

    def __init__(
        self,
        link: RabbitConnection,
        handler: DeliveryHandler,
        backoff: Backoff,
        forget: Callable[[RabbitEvents], None],
    ) -> None:
        self._link = link
        self._feed = EventFanout(handler)
        self._forget = forget
        self._queue = events_queue()
        self._upkeep = Retaking(EVENTS, self._consume, backoff)

    async def start(self) -> None:
        """Hear events from now on."""
        try:
            await self._upkeep.start()
        except BaseException:
            await self._feed.close()
            raise

    async def close(self) -> None:
        """Hear no more."""
        self._forget(self)
        await self._upkeep.stop()
        await self._feed.close()

    async def abandon(self) -> None:
        """Hear no more."""
        await self.close()

    async def _consume(self, had: Callable[[], None]) -> None:
        session = await self._link.session()
        session.forget_events()
        await session.declare_events()
        channel = await session.channel(confirms=False)
        stopped = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _: stopped.set())
        channel.closing.add_done_callback(lambda _: stopped.set())
        try:
            with interruptible(), permitted():
                async with asyncio.timeout(ANSWERED_WITHIN):
                    await self._bind(channel)
            had()
            await stopped.wait()
        finally:
            await close_channel(channel)

    async def _bind(self, channel: Channel) -> None:
        await channel.queue_declare(self._queue, exclusive=True, auto_delete=True)
        await channel.queue_bind(self._queue, EVENTS, _EVERY_KEY)
        await channel.basic_consume(self._queue, self._arrived, no_ack=True)

    async def _arrived(self, message: DeliveredMessage) -> None:
        self._feed.offer(message.body)
