"""A consumer that hands its deliveries to handlers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from shared.backoff import Backoff
from shared.broker.handler_pool import HandlerPool
from shared.broker.port import DeliveryHandler
from shared.broker.rabbitmq.consumer import RabbitConsumer, Source
from shared.broker.rabbitmq.declarations import Retaking
from shared.broker.rabbitmq.errors import Interrupted


class RabbitSubscription:
    """A `Subscription` on a queue of RabbitMQ. `forget` is called when it ends."""

    def __init__(
        self,
        source: Source,
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
        """Consume. Raises `QueueMismatch`, `BrokerUnavailable`."""
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
