"""What Haulier asks of a broker (engine spec, Queues). One contract suite runs over all adapters.

Queues are known by name; which are durable, prioritised, transient or expiring follows from the
name alone and is said in one place, `shared.model.queues`. An adapter declares a queue before
its first use, and again whenever it finds it gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

import msgspec

LARGEST_MESSAGE = 16 * 1024 * 1024 - 64 * 1024
"""Bytes that a message's body may have: RabbitMQ 4.x takes 16 MiB by default, and closes the channel of who sends
more."""


class QueueInfo(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A queue's figures. `size` is what is ready, without `unacked`, which is left out where it can't be known."""

    name: str
    size: int
    subscribers: int
    unacked: int | None = None


class Delivery(Protocol):
    """A message on loan from a queue, until it is settled by exactly one of `ack`, `requeue` and
    `bury`.

    Settling twice, or settling after the loan was lost, does nothing and raises nothing: the broker
    gives the message to somebody again, and repeats are harmless by design.
    """

    @property
    def body(self) -> bytes:
        """The message's bytes."""

    @property
    def queue(self) -> str:
        """Name of the queue it came from."""

    @property
    def priority(self) -> int:
        """0 to 9."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that it was published with; others than texts are left out."""

    @property
    def lost(self) -> bool:
        """True once the channel that it came on is gone: the broker has taken it back."""

    async def wait_lost(self) -> None:
        """Return when `lost` becomes true (never, if it is settled first: cancel the wait)."""

    async def ack(self) -> None:
        """Tell the broker that it is handled and may be forgotten."""

    async def requeue(self) -> None:
        """Give it back, to be delivered again to anyone."""

    async def bury(self, reason: str) -> None:
        """Move it to the queue `dead` with `reason` in the header `x-reason` and the queue's name
        in `x-queue`.

        The copy in `dead` is confirmed before the original is acknowledged."""


class Slot(Protocol):
    """One consumer with a channel of its own and a prefetch of 1: it never holds more than one
    delivery."""

    async def take(self) -> Delivery:
        """Wait for the next delivery, for ever: reconnecting, declaring and consuming again as need
        be.

        To be called only when the last delivery is settled or lost: a slot whose channel was lost
        consumes again only here, so that it never runs more than one task. While nobody waits in
        `take`, an idle slot with a live channel may already hold its next delivery (that is what a
        prefetch of 1 is); cancelling `take` is safe and loses nothing."""

    async def pause(self) -> None:
        """Stop consuming; a delivery that nobody has taken goes back. The next `take` consumes
        again."""

    async def close(self) -> None:
        """Stop consuming and give back what was not settled."""


class Subscription(Protocol):
    """A consumer that hands deliveries to a handler, many side by side."""

    async def close(self) -> None:
        """Stop consuming, wait for handlers that run, give back the rest."""

    async def abandon(self) -> None:
        """Give back at once all that is on loan, and stop consuming, without waiting for any
        handler.

        For a coordinator that has lost the store, or has a handler past its deadline: others get
        its messages. Handlers that run find their delivery lost. To consume again, subscribe
        again."""


DeliveryHandler = Callable[[Delivery], Awaitable[None]]


class Broker(Protocol):
    """A broker. All methods may be called from any task of one event loop."""

    async def start(self) -> None:
        """Connect, waiting for ever with growing delays while the broker is not there, and saying
        so in the log.

        Raises `BrokerMisconfigured` at once where waiting can't help (credentials,
        `QueueMismatch`)."""

    async def close(self) -> None:
        """Close everything; deliveries on loan go back."""

    async def ping(self) -> None:
        """Return if the broker answers; raise `BrokerUnavailable` if not within 2 s."""

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        priority: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Put `body` into `queue`.

        For a durable queue it is persistent, and safe with the broker on return (confirmed and
        routed: where it was returned as unroutable the queue is declared and it is sent again). For
        a transient queue it returns once sent. Raises `BrokerUnavailable` where that can't be had
        within 10 s (then it may or may not have been taken), and `ValueError` for what no broker takes: a
        priority above 9, or a body of more than `LARGEST_MESSAGE`. Many at once are pipelined. To a
        node's own queue (`x-…`) that does not exist it is dropped silently: publishing must not
        create the queue of a dead node."""

    async def publish_event(self, body: bytes) -> None:
        """Send `body` to every present subscriber of events; best effort, never raises for a broker
        that is away."""

    async def subscribe_events(self, handler: DeliveryHandler) -> Subscription:
        """Hear every event from now on. Deliveries need no settling."""

    async def subscribe(
        self, queue: str, handler: DeliveryHandler, *, prefetch: int
    ) -> Subscription:
        """Hand each delivery of `queue` to `handler`, up to `prefetch` side by side, for ever,
        through reconnects.

        The handler settles the delivery. If it returns without, or raises, the delivery is requeued
        after 1 s. Consumption resumes by itself after a lost channel, a deleted queue or a
        restarted broker."""

    async def slot(self, queue: str) -> Slot:
        """Open a slot of a worker on `queue`. Raises `QueueMismatch` where the queue can't be
        ours."""

    async def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        """Return the figures of all queues that the broker can list, of those that are always there, and of those
        of `names` that exist, by name; raises `BrokerUnavailable`."""

    async def queue(self, name: str) -> QueueInfo | None:
        """Return the figures of one queue, or None where there is none; raises `BrokerUnavailable`."""

    async def ready(self, name: str) -> int | None:
        """Return how many messages are ready in a queue now, or None where there is none; raises
        `BrokerUnavailable`. One question to the broker itself; not for queues that expire."""

    async def delete_queue(self, name: str, *, unused: bool = False) -> bool:
        """Delete a queue and what is in it; with `unused`, only one that has no consumer. False where
        there is none, or it is in use."""

    def on_connected(self, callback: Callable[[bool], None]) -> None:
        """Call `callback(first)` at every new consuming connection, `first` being true for the
        first one.

        An adapter without connections calls it once, in `start`."""
