"""`RabbitMQBroker`: the broker port over RabbitMQ."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar

from yarl import URL

from shared.broker.port import DeliveryHandler, QueueInfo
from shared.broker.rabbitmq.connection import RabbitConnection, Session
from shared.broker.rabbitmq.consumers import QueueSource, RabbitSlot, RabbitSubscription
from shared.broker.rabbitmq.declarations import (
    Declarations,
    Interrupted,
    interruptible,
    send_nowhere,
)
from shared.broker.rabbitmq.events import EventSender, RabbitEvents
from shared.broker.rabbitmq.publisher import Letter, PublishChannel, Publisher
from shared.broker.rabbitmq.queue_stats import Figures, management_of
from shared.config import AMQP_HEARTBEAT
from shared.config.schema import ClientTls
from shared.errors import BrokerForbids, BrokerMisconfigured, BrokerUnavailable
from shared.model.queues import ALWAYS_THERE, DEAD_QUEUE, LOGS_QUEUE, queue_kind
from shared.supervision import Backoff
from shared.tls import client_context

PING_PATIENCE = 2.0
"""Seconds."""

_FIRST_DELAY = 0.2
_JITTER = 0.5

_T = TypeVar("_T")

QUEUE_TYPES = ("classic", "quorum")


class RabbitMQBroker:
    """A `Broker` over RabbitMQ 3.10 to 4.x.

    `url`: `amqp(s)://user:password@host:port/vhost`; `management_url`: of the management API, with
    user and password; without, it is looked for where RabbitMQ has it by default. `queue_type`:
    `classic` or `quorum`, for durable queues. `node_expiry`: seconds that a node's own queue
    outlives its node. `reconnect_cap`: the longest delay between two tries to connect, in seconds.
    `tls`: for `amqps` and `https`, where the default is not meant. `name` is what RabbitMQ's
    management page calls our connections. `queues` are declared at the start, beside those that are
    always there. `chance` gives numbers from 0 to 1, that spread these delays.

    Four connections, each made when it is first needed: one for publishing (RabbitMQ stops reading
    from one that publishes while memory is short, and acknowledgements must go on), one for
    consuming, and the same two for logs, so that a flood of those delays nothing else."""

    def __init__(
        self,
        url: str,
        management_url: str | None = None,
        *,
        queue_type: str,
        node_expiry: float,
        reconnect_cap: float,
        name: str = "haulier",
        queues: Collection[str] = (),
        tls: ClientTls = ClientTls(),  # noqa: B008 - it is frozen
        chance: Callable[[], float] = random.random,
    ) -> None:
        if queue_type not in QUEUE_TYPES:
            raise BrokerMisconfigured(f"queue type {queue_type!r}: one of {', '.join(QUEUE_TYPES)}")
        self._url = _checked(url)
        self._name = name
        self._tls = tls
        self._context = client_context(tls)
        self._node_expiry = node_expiry
        self._cap = reconnect_cap
        self._chance = chance
        self._declarations = Declarations(queue_type, node_expiry)
        self._queues = queues
        self._publishing = self._link("publishing")
        self._consuming = self._link("consuming")
        self._publishing_logs = self._link("publishing logs")
        self._consuming_logs = self._link("consuming logs")
        self._publisher = Publisher(self._publishing)
        self._log_publisher = Publisher(self._publishing_logs)
        self._management = management_of(self._url, management_url, self._context)
        lane = PublishChannel(self._consuming, confirms=False)
        self._figures = Figures(lane, self._management)
        self._pinging = PublishChannel(self._consuming, confirms=False)
        self._events: EventSender | None = None
        self._consumers: set[RabbitSubscription | RabbitSlot | RabbitEvents] = set()
        self._callbacks: list[Callable[[bool], None]] = []
        self._consuming.connected = self._tell

    async def start(self) -> None:
        """Connect, and declare the queues that are always there.

        Waits for ever while RabbitMQ is away. Raises `BrokerMisconfigured`."""
        try:
            await self._publishing.start()
            await self._consuming.start()
            await self._check_sending()
            await self._declare_all({*ALWAYS_THERE, *self._queues})
        except BaseException:
            await self.close()
            raise
        self._events = EventSender(self._publishing)

    async def close(self) -> None:
        """Close all connections; handlers that run are cancelled, what is on loan goes back."""
        await asyncio.gather(*(_end(consumer) for consumer in tuple(self._consumers)))
        if self._events is not None:
            await self._events.close()
        links = self._publishing, self._consuming, self._publishing_logs, self._consuming_logs
        await asyncio.gather(*(link.close() for link in links))
        if self._management is not None:
            await self._management.close()

    async def ping(self) -> None:
        """Return if RabbitMQ answers within 2 s, else raise `BrokerUnavailable`."""
        try:
            async with asyncio.timeout(PING_PATIENCE):
                _, channel = await self._pinging.channel()
                with interruptible():
                    await channel.basic_qos(prefetch_count=1)
        except (Interrupted, TimeoutError) as error:
            raise BrokerUnavailable(f"RabbitMQ at {_address(self._url)} does not answer") from error

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        priority: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Put `body` into `queue`. Raises `BrokerUnavailable` past 10 s, `QueueMismatch`, and
        `ValueError` for more than 16 MiB."""
        kind = queue_kind(queue, node_expiry=self._node_expiry)
        letter = Letter(queue, kind, body, priority, headers or {})
        publisher = self._log_publisher if queue == LOGS_QUEUE else self._publisher
        await publisher.publish(letter)

    async def publish_event(self, body: bytes) -> None:
        """Have `body` sent to every present subscriber of events, soon; it never waits."""
        if self._events is not None:
            self._events.offer(body)

    async def subscribe_events(self, handler: DeliveryHandler) -> RabbitEvents:
        """Hear every event from now on, in order; what is sent during a reconnect is missed."""
        events = RabbitEvents(self._consuming, handler, self._backoff(), self._consumers.discard)
        await events.start()
        self._consumers.add(events)
        return events

    async def subscribe(
        self, queue: str, handler: DeliveryHandler, *, prefetch: int
    ) -> RabbitSubscription:
        """Hand each delivery of `queue` to `handler`; consumes when this returns."""
        if prefetch < 1:
            raise ValueError("a prefetch is at least 1")
        subscription = RabbitSubscription(
            self._source(queue), handler, prefetch, self._backoff(), self._consumers.discard
        )
        await subscription.start()
        self._consumers.add(subscription)
        return subscription

    async def slot(self, queue: str) -> RabbitSlot:
        """Open a slot on `queue`; it consumes from its first `take` on. Raises `QueueMismatch`."""
        await self._declare(queue)
        slot = RabbitSlot(self._source(queue), self._backoff(), self._consumers.discard)
        self._consumers.add(slot)
        return slot

    async def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        """Return the figures of all queues of the virtual host, by name; without a management API, of those that are
        always there and of `names`, without `unacked`."""
        return await self._figures.queues(names)

    async def queue(self, name: str) -> QueueInfo | None:
        """Return the figures of one queue, or None where there is none; raises `BrokerUnavailable`."""
        return await self._figures.queue(name)

    async def ready(self, name: str) -> int | None:
        """Return how many messages are ready in a queue, or None where there is none; raises `BrokerUnavailable`."""
        return await self._figures.ready(name)

    async def delete_queue(self, name: str, *, unused: bool = False) -> bool:
        """Delete a queue and what is in it; who consumes it declares it again. With `unused`, whoever begins to
        consume in the same moment does so too."""
        return await self._figures.delete(name, unused=unused)

    def on_connected(self, callback: Callable[[bool], None]) -> None:
        """Call `callback(first)` at every new consuming connection, before anything consumes."""
        self._callbacks.append(callback)

    def _link(self, purpose: str) -> RabbitConnection:
        url = self._url.update_query(
            heartbeat=int(AMQP_HEARTBEAT), name=f"{self._name} ({purpose})"
        )
        return RabbitConnection(
            purpose,
            _address(self._url),
            lambda: Session.open(url, self._declarations, self._context),
            self._backoff(),
            self._tls,
        )

    def _backoff(self) -> Backoff:
        return Backoff(_FIRST_DELAY, self._cap, jitter=_JITTER, chance=self._chance)

    def _tell(self, first: bool) -> None:
        for callback in self._callbacks:
            callback(first)

    def _source(self, queue: str) -> QueueSource:
        link = self._consuming_logs if queue == LOGS_QUEUE else self._consuming
        return QueueSource(link, queue, self._bury)

    async def _bury(self, body: bytes, headers: Mapping[str, str]) -> None:
        await self.publish(DEAD_QUEUE, body, headers=headers)

    async def _check_sending(self) -> None:
        """Raise `BrokerForbids` where our user may send nothing: who doesn't wait for confirms would never be told."""
        session = await self._publishing.session()
        # Unanswered it stays, among others, while RabbitMQ takes no messages for want of memory.
        with suppress(Interrupted, TimeoutError):
            async with asyncio.timeout(PING_PATIENCE):
                await session.ask(send_nowhere)

    async def _declare_all(self, queues: Collection[str]) -> None:
        """Declare queues and the topic of events; where one is somebody else's, none is made."""
        absent = {
            queue for queue in queues if await self._ask(partial(Session.absent, queue=queue))
        }
        for queue in sorted({*queues} - absent):
            await self._declare(queue)
        with suppress(BrokerForbids):  # a worker's user, which has no use for it
            await self._ask(Session.declare_events)
        for queue in sorted(absent):
            await self._declare(queue)

    async def _declare(self, queue: str) -> None:
        """Declare `queue`, waiting for ever for RabbitMQ. Raises `QueueMismatch`."""
        await self._ask(partial(Session.declare, queue=queue))

    async def _ask(self, what: Callable[[Session], Awaitable[_T]]) -> _T:
        """Return what RabbitMQ answers, waiting for ever for it."""
        backoff = self._backoff()
        while True:
            session = await self._consuming.session()
            try:
                return await what(session)
            except (Interrupted, TimeoutError):
                await asyncio.sleep(backoff.next())


async def _end(consumer: RabbitSubscription | RabbitSlot | RabbitEvents) -> None:
    if isinstance(consumer, RabbitSubscription):
        await consumer.abandon()
        await consumer.crew.cancel()
    else:
        await consumer.close()


def _checked(url: str) -> URL:
    try:
        parsed = URL(url)
    except ValueError as error:
        raise BrokerMisconfigured(f"broker.rabbitmq.url is not a URL: {error}") from error
    if parsed.scheme not in ("amqp", "amqps") or not parsed.host:
        raise BrokerMisconfigured("broker.rabbitmq.url is not of the form amqp://user:…@host/vhost")
    return parsed


def _address(url: URL) -> str:
    """Return the server and its virtual host, without user and password."""
    return f"{url.host}:{url.explicit_port or (5671 if url.scheme == 'amqps' else 5672)}{url.path}"
