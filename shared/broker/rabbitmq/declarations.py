"""How RabbitMQ is told of a queue, and of the topic of events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
from aiormq.channel import Channel
from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from shared.config.schema import ClientTls
from shared.errors import (
    ApplicationError,
    BrokerForbids,
    BrokerMisconfigured,
    BrokerUnavailable,
    QueueMismatch,
)
from shared.model.queues import COORDINATOR_QUEUES, EVENTS, MAX_PRIORITY, queue_kind
from shared.supervision import Backoff, Loop, waiting
from shared.tls import tls_refusal

log = structlog.get_logger(__name__)


class Interrupted(Exception):  # it says what happened, not that anything is wrong
    """A channel or a connection was lost on the way, or did not answer: try again on a new one.

    Never leaves this package."""


class Absent(Interrupted):
    """The queue is not there."""


class Elsewhere(Interrupted):
    """The queue is one that another connection has for itself."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` for whatever the driver raises, and see that a cancellation stays one.

    The driver ends those who wait on a lost connection by a `CancelledError` that nobody asked for;
    and it loses one that comes in the same moment as its answer or its error (as
    `asyncio.wait_for` does before Python 3.12)."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0

    def asked_to_end() -> bool:
        return task is not None and task.cancelling() > before

    try:
        yield
    except BaseException as error:
        if asked_to_end():
            raise asyncio.CancelledError from error
        if isinstance(error, ApplicationError | Interrupted | TimeoutError):
            raise
        if isinstance(error, asyncio.CancelledError):
            raise Interrupted("the connection was lost") from error
        if isinstance(error, Exception):
            raise Interrupted(str(error) or type(error).__name__) from error
        raise
    if asked_to_end():
        raise asyncio.CancelledError


@contextmanager
def permitted() -> Iterator[None]:
    """Raise `BrokerForbids` where RabbitMQ says that this user lacks a right."""
    try:
        yield
    except ChannelAccessRefused as error:
        raise BrokerForbids(f"RabbitMQ: the user lacks a right: {error}") from error


async def send_nowhere(channel: Channel) -> None:
    """Send a message that no queue gets. Raises `BrokerForbids`, or what the driver raises."""
    with permitted():
        await channel.basic_publish(b"", routing_key="")
        await channel.basic_qos(prefetch_count=0)  # answered once the message was allowed


def connection_refused(
    error: BaseException, address: str, tls: ClientTls
) -> BrokerMisconfigured | None:
    """Return why waiting won't get us a connection to `address`, or None where it may."""
    if isinstance(error, ProbableAuthenticationError | AuthenticationError):
        return BrokerMisconfigured(
            f"RabbitMQ at {address} refuses the user or the password of broker.rabbitmq.url"
        )
    # The driver shows what was answered, without its words.
    if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error):
        return BrokerMisconfigured(
            f"RabbitMQ refuses the virtual host of {address}: make it and give the user its rights "
            "there, set another one in broker.rabbitmq.url, or raise its limit of connections"
        )
    if isinstance(error, BrokerMisconfigured):
        return BrokerMisconfigured(f"RabbitMQ at {address}: {error}")
    said = f"{error} {error.__cause__}"
    refusal = tls_refusal(said, f"RabbitMQ at {address}", "broker.rabbitmq", tls)
    return BrokerMisconfigured(refusal) if refusal is not None else None


def declaration_refused(
    error: BaseException, name: str, what: str = "queue"
) -> ApplicationError | None:
    """Return why a queue, or an exchange, can't be declared, ever; None where trying again may help."""
    if isinstance(error, ChannelPreconditionFailed | ChannelLockedResource):
        return QueueMismatch(name, _detail(str(error)), what)
    if isinstance(error, ChannelAccessRefused):
        kind = BrokerMisconfigured if "reserved prefix" in str(error) else BrokerForbids
        hint = _MADE_BY_ONE if name in COORDINATOR_QUEUES else ""
        return kind(f"RabbitMQ: the user may not use {what} {name!r}: {error}{hint}")
    return None


_MADE_BY_ONE = " (a coordinator makes this queue, if its user may: start one first)"


def _detail(text: str) -> str:
    """Return what RabbitMQ says of a mismatch, without its own prefix."""
    return text.split(" - ", 1)[-1]


LONGEST_NAME = 255
"""Bytes of UTF-8 that AMQP leaves for a queue's name."""

DELIVERY_LIMIT = "x-delivery-limit"

_Version = tuple[int, ...]


def check_name(queue: str) -> None:
    """Raise `BrokerMisconfigured` where no queue of RabbitMQ can have this name."""
    try:
        size = len(queue.encode())
    except UnicodeEncodeError:
        raise BrokerMisconfigured(f"the name of queue {queue!r} is not Unicode text") from None
    if not size:
        # To RabbitMQ it would be the queue that was declared last.
        raise BrokerMisconfigured("a queue without a name")
    if size > LONGEST_NAME:
        raise BrokerMisconfigured(
            f"the name of queue {queue!r} has {size} bytes in UTF-8, RabbitMQ takes {LONGEST_NAME}"
        )


class Declarations(msgspec.Struct, frozen=True):
    """Declares queues. `queue_type`: `classic` or `quorum`; `node_expiry`: seconds."""

    queue_type: str
    node_expiry: float

    def arguments(self, queue: str, version: _Version) -> dict[str, Any]:
        """Return the arguments of `queue` on a server of `version`."""
        kind = queue_kind(queue, node_expiry=self.node_expiry)
        quorum = self.queue_type == "quorum" and kind.persistent
        arguments: dict[str, Any] = {"x-queue-type": "quorum" if quorum else "classic"}
        if quorum and version >= (4,):
            arguments[DELIVERY_LIMIT] = -1
        if kind.prioritised and not quorum:
            arguments["x-max-priority"] = MAX_PRIORITY
        if kind.message_ttl is not None:
            arguments["x-message-ttl"] = round(kind.message_ttl * 1000)
        if kind.expires is not None:
            arguments["x-expires"] = round(kind.expires * 1000)
        return arguments

    async def declare(self, channel: Channel, queue: str, version: _Version) -> None:
        """Declare `queue`. A failure takes `channel` with it.

        Raises `QueueMismatch`, `BrokerMisconfigured`, or what the driver raises."""
        check_name(queue)
        arguments = self.arguments(queue, version)
        try:
            await channel.queue_declare(queue, durable=True, arguments=arguments)
        except Exception as error:
            refused = declaration_refused(error, queue)
            if refused is None:
                raise
            raise refused from error


def only_limit_differs(error: QueueMismatch) -> bool:
    """Return whether a quorum queue of before 4.0 has been found, that has the limit of 4.x."""
    return isinstance(error.__cause__, ChannelPreconditionFailed) and (
        f"inequivalent arg '{DELIVERY_LIMIT}'" in str(error)
    )


def warn_of_limit(queue: str) -> None:
    """Say what becomes of a queue that was made before an upgrade to RabbitMQ 4.x."""
    log.warning(
        "a queue was made before RabbitMQ 4.0 and drops a message at its 20th return: "
        "to have none dropped, delete it when it is empty, it is made again at once",
        queue=queue,
    )


async def look(channel: Channel, queue: str) -> tuple[int, int]:
    """Return what is ready in `queue`, and how many consume it. Where it is not there, `channel` is
    lost and `Absent` raised."""
    try:
        found = await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity as error:
        raise Absent(queue) from error
    except ChannelLockedResource as error:
        raise Elsewhere(f"queue {queue!r} belongs to another connection alone") from error
    return found.message_count or 0, found.consumer_count or 0


async def declare_events(channel: Channel) -> None:
    """Declare the topic that events go through. Raises `QueueMismatch`, `BrokerForbids`, or what the driver raises."""
    try:
        await channel.exchange_declare(EVENTS, exchange_type="topic", durable=True)
    except Exception as error:
        refused = declaration_refused(error, EVENTS, "exchange")
        if refused is None:
            raise
        raise refused from error


Attempt = Callable[[Callable[[], None]], Awaitable[None]]
"""Takes it up, calls its argument once it is had, and returns or raises when it has ended."""


class Retaking:
    """Repeats `attempt` to consume a queue, with the delays of `backoff` between them, until it is stopped."""

    def __init__(self, queue: str, attempt: Attempt, backoff: Backoff) -> None:
        self._queue = queue
        self._loop = Loop("consume", self._run, about=queue)
        self._attempt = attempt
        self._backoff = backoff
        self._first: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Begin; return once it is had for the first time. Raises `BrokerMisconfigured`, and
        `BrokerUnavailable` when the connection is closed for good."""
        self._first = asyncio.get_running_loop().create_future()
        self._loop.start()
        try:
            await asyncio.shield(self._first)
        except BaseException:
            self._first.cancel()
            await self.stop()
            raise

    async def stop(self) -> None:
        """Attempt no more."""
        await self._loop.close()

    async def _run(self) -> None:
        while True:
            try:
                with waiting():  # whatever RabbitMQ is asked has a limit of its own
                    await self._attempt(self._had)
            except (Interrupted, TimeoutError) as error:
                log.info(
                    "a queue is consumed again", queue=self._queue, reason=str(error) or "no answer"
                )
            except BrokerMisconfigured as error:
                if self._failed(error):
                    return
                log.warning("a queue can't be consumed", queue=self._queue, reason=str(error))
            except BrokerUnavailable as closed:
                self._failed(closed)
                return
            except Exception:
                # Whatever it is, a queue that nobody takes from is worse.
                log.exception("consuming a queue failed and begins again", queue=self._queue)
            await asyncio.sleep(self._backoff.next())

    def _had(self) -> None:
        self._backoff.reset()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _failed(self, error: Exception) -> bool:
        """Tell who waits in `start`; False where nobody does."""
        if self._first is None or self._first.done():
            return False
        self._first.set_exception(error)
        return True
