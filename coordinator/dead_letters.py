"""Dead letters: the messages in the queue `dead`, to be looked at, sent again or discarded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from shared.broker.deliveries import ORIGIN, REASON
from shared.broker.port import Broker, Delivery
from shared.errors import NotAllowed
from shared.ids import derived_id
from shared.model.queues import DEAD_QUEUE, NODE_QUEUE_PREFIX

LOOKED_AT: Final = 100
"""Dead letters that can be seen at a time, the oldest first: those behind them, once these are gone."""

_FOUND_WITHIN: Final = 2.0
"""Seconds until a look goes on with what has come."""


class DeadLetter(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A message that nobody could read or handle, and why. `queue`: where it was taken from; `size`: its bytes; `kind`,
    `job_id` and `task_id`: what it is about, where it says so. Its contents are not shown: they may hold secrets."""

    id: str
    queue: str
    reason: str
    size: int
    kind: str = ""
    job_id: str = ""
    task_id: str = ""


class _About(msgspec.Struct, rename="camel"):
    kind: str = ""
    job_id: str = ""
    task_id: str = ""


class DeadLetters:
    """Takes dead letters up to look at them, and gives back those that are to stay. One look at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._turn = asyncio.Lock()

    async def all(self) -> list[DeadLetter]:
        """Return the oldest `LOOKED_AT`. Raises `BrokerUnavailable`."""
        async with self._held() as held:
            return [_described(delivery) for delivery in held]

    async def resend(self, id: str) -> bool:
        """Put one back into the queue that it came from; False where there is none of this id.

        Whoever dies between leaves it in both, which does no harm. Raises `NotAllowed` where it does not say where it
        came from, or that was a node's own queue: what a node is told is repeated without it."""
        async with self._held() as held:
            delivery = _of(held, id)
            if delivery is None:
                return False
            queue = delivery.headers.get(ORIGIN, "")
            if not queue or queue == DEAD_QUEUE:
                raise NotAllowed("the message does not say which queue it was taken from")
            if queue.startswith(NODE_QUEUE_PREFIX):
                raise NotAllowed(
                    f"{queue} is a node's own queue, and what it is told is repeated: the message can only be discarded"
                )
            headers = {k: v for k, v in delivery.headers.items() if k not in (REASON, ORIGIN)}
            priority = delivery.priority
            await self._broker.publish(queue, delivery.body, priority=priority, headers=headers)
            await delivery.ack()
            return True

    async def discard(self, id: str) -> bool:
        """Remove one; False where there is none of this id."""
        async with self._held() as held:
            delivery = _of(held, id)
            if delivery is None:
                return False
            await delivery.ack()
            return True

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Sequence[Delivery]]:
        """Hold the oldest while the block runs; what it does not settle goes back."""
        async with self._turn:
            wanted = min(await self._broker.ready(DEAD_QUEUE) or 0, LOOKED_AT)
            held: list[Delivery] = []
            there, over = asyncio.Event(), asyncio.Event()

            async def hold(delivery: Delivery) -> None:
                held.append(delivery)
                if len(held) >= wanted:
                    there.set()
                await over.wait()

            if not wanted:
                yield held
                return
            subscription = await self._broker.subscribe(DEAD_QUEUE, hold, prefetch=LOOKED_AT)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FOUND_WITHIN):
                        await there.wait()
                yield held
            finally:
                for delivery in reversed(held):  # each goes to the front
                    await delivery.requeue()
                over.set()
                await subscription.close()


def _of(held: Sequence[Delivery], id: str) -> Delivery | None:
    return next((each for each in held if _id_of(each) == id), None)


def _id_of(delivery: Delivery) -> str:
    """Return an id that follows from the message: it stays what it is, however often that is looked at."""
    headers = delivery.headers
    return derived_id("dead letter", headers.get(ORIGIN), headers.get(REASON), delivery.body)


def _described(delivery: Delivery) -> DeadLetter:
    about = _About()
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        about = msgspec.json.decode(delivery.body, type=_About)
    return DeadLetter(
        id=_id_of(delivery),
        queue=delivery.headers.get(ORIGIN, ""),
        reason=delivery.headers.get(REASON, ""),
        size=len(delivery.body),
        kind=about.kind[:64],
        job_id=about.job_id[:64],
        task_id=about.task_id[:64],
    )
