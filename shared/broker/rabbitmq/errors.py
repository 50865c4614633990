"""What goes wrong between us and RabbitMQ, in our own words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from shared.errors import ApplicationError, BrokerForbids, BrokerMisconfigured, QueueMismatch


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
    and it swallows one that comes in the same moment as its answer (as `asyncio.wait_for` does
    before Python 3.12)."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except (ApplicationError, Interrupted, TimeoutError):
        raise
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling() > before:
            raise
        raise Interrupted("the connection was lost") from error
    except Exception as error:
        raise Interrupted(str(error) or type(error).__name__) from error
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def connection_refused(error: BaseException, address: str) -> BrokerMisconfigured | None:
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
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return BrokerMisconfigured(f"the certificate of RabbitMQ at {address}: {cause}")
    return None


def declaration_refused(error: BaseException, queue: str) -> ApplicationError | None:
    """Return why `queue` can't be declared, ever; None where trying again may help."""
    if isinstance(error, ChannelPreconditionFailed | ChannelLockedResource):
        return QueueMismatch(queue, _detail(str(error)))
    if isinstance(error, ChannelAccessRefused):
        kind = BrokerMisconfigured if "reserved prefix" in str(error) else BrokerForbids
        return kind(f"RabbitMQ: the user may not use queue {queue!r}: {error}")
    return None


def _detail(text: str) -> str:
    """Return what RabbitMQ says of a mismatch, without its own prefix."""
    return text.split(" - ", 1)[-1]
