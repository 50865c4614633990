"""Putting messages into queues."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

import msgspec
from aiormq.channel import Channel
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from shared.broker.deliveries import check_size, headers_size
from shared.broker.rabbitmq.connection import ANSWERED_WITHIN, STEADY, RabbitConnection, Session
from shared.broker.rabbitmq.declarations import Interrupted, interruptible
from shared.errors import BrokerUnavailable
from shared.model.queues import MAX_PRIORITY, QueueKind
from shared.supervision import Backoff

LARGEST_HEADERS = 64 * 1024
"""Bytes. They must fit one frame."""

RETRY_DELAY = 0.05
LONGEST_RETRY_DELAY = 2.0
"""Seconds before a message goes out again after a lost channel, a return or a refusal: at first, and in the end."""


def retry_delays() -> Backoff:
    """Return the delays of one message, or of one channel."""
    return Backoff(RETRY_DELAY, LONGEST_RETRY_DELAY)


class Letter(msgspec.Struct, frozen=True, gc=False):
    """A message to be sent to `queue`, which is what `kind` says."""

    queue: str
    kind: QueueKind
    body: bytes
    priority: int
    headers: Mapping[str, str]

    def check(self) -> None:
        """Raise `ValueError` for what would cost others their channel."""
        if not 0 <= self.priority <= MAX_PRIORITY:
            raise ValueError(f"priority {self.priority} is not within 0 to {MAX_PRIORITY}")
        check_size(self.body)
        size = headers_size(self.headers)
        if size > LARGEST_HEADERS:
            raise ValueError(f"headers of {size} bytes: at most {LARGEST_HEADERS} go")

    def properties(self) -> Basic.Properties:
        """Return what goes with the body."""
        return Basic.Properties(
            delivery_mode=2 if self.kind.persistent else 1,
            priority=self.priority,
            headers=dict(self.headers) if self.headers else None,
        )


class Publisher:
    """Publishes on one connection: on a channel with confirms, or on one without."""

    def __init__(self, link: RabbitConnection) -> None:
        self._confirmed = PublishChannel(link, confirms=True, delays=retry_delays())
        self._plain = PublishChannel(link, confirms=False, delays=retry_delays())

    async def publish(self, letter: Letter) -> None:
        """Send, and for a durable queue wait until RabbitMQ has it.

        A lost channel, a return and a refusal are tried again, so that it may go out twice. Raises
        `BrokerUnavailable` past 10 s, `QueueMismatch`, and `ValueError` for what can't be sent."""
        letter.check()
        trouble = "no answer"
        delays = retry_delays()
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                while True:
                    try:
                        return await self._send(letter)
                    except Interrupted as interrupted:
                        trouble = str(interrupted)
                    await asyncio.sleep(delays.next())
        except TimeoutError:
            raise BrokerUnavailable(
                f"RabbitMQ did not take a message for queue {letter.queue!r} "
                f"within {ANSWERED_WITHIN:g} s: {trouble}"
            ) from None

    async def _send(self, letter: Letter) -> None:
        confirms = letter.kind.persistent
        lane = self._confirmed if confirms else self._plain
        session, channel = await lane.channel()
        if letter.kind.creatable:
            await session.declare(letter.queue)
        await session.unblocked()
        with interruptible():
            try:
                await channel.basic_publish(
                    letter.body,
                    routing_key=letter.queue,
                    properties=letter.properties(),
                    mandatory=confirms,
                    # A confirm says more than an emptied buffer.
                    wait=not confirms,
                )
            except PublishError as returned:
                session.forget(letter.queue)
                raise Interrupted("it was returned as unroutable") from returned
        if confirms:
            lane.worked()


class PublishChannel:
    """One channel on `link`, shared by all who publish, or ask, with or without `confirms`.

    With `delays`, one that is lost again and again, as that of a user who may not write is, is opened ever more
    rarely: until it `worked`, or has stayed for a while."""

    def __init__(
        self, link: RabbitConnection, *, confirms: bool, delays: Backoff | None = None
    ) -> None:
        self.link = link
        self._confirms = confirms
        self._delays = delays
        self._lock = asyncio.Lock()
        self._open: tuple[Session, Channel] | None = None
        self._opened_at = -math.inf
        self._not_before = -math.inf

    async def channel(self) -> tuple[Session, Channel]:
        """Wait for the connection and its channel. Raises `Interrupted` and as `RabbitConnection.session`."""
        if (ready := self._ready()) is not None:
            return ready
        async with self._lock:
            while (ready := self._ready()) is None:
                await self._wait()
                session = await self.link.session()
                self._open = session, await session.channel(confirms=self._confirms)
            return ready

    def worked(self) -> None:
        """Say that RabbitMQ took what was sent on it."""
        if self._delays is not None:
            self._delays.reset()
            self._not_before = -math.inf

    async def _wait(self) -> None:
        """Wait until it may be opened. Those who give up meanwhile put nothing off for those behind them."""
        if self._delays is None:
            return
        now = asyncio.get_running_loop().time
        if now() < self._not_before:
            await asyncio.sleep(self._not_before - now())
        if now() > self._opened_at + STEADY:
            self._delays.reset()
        self._opened_at = now()
        self._not_before = now() + self._delays.next()

    def _ready(self) -> tuple[Session, Channel] | None:
        if self._open is None:
            return None
        session, channel = self._open
        return None if channel.is_closed or session is not self.link.present else self._open
