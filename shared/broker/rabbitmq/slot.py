"""A slot of a worker: one consumer, one delivery at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from shared.backoff import Backoff
from shared.broker.port import Delivery
from shared.broker.rabbitmq.consumer import RabbitConsumer, RabbitDelivery, Source
from shared.broker.rabbitmq.errors import Interrupted
from shared.errors import BrokerMisconfigured, BrokerUnavailable

log = structlog.get_logger(__name__)


class RabbitSlot:
    """A `Slot` on a queue of RabbitMQ. `forget` is called when it ends."""

    def __init__(
        self,
        source: Source,
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
