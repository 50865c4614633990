"""One connection while it lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aio_pika
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.connection import Connection
from yarl import URL

from shared.broker.rabbitmq.declarations import (
    Declarations,
    declare_events,
    look,
    only_limit_differs,
    warn_of_limit,
)
from shared.broker.rabbitmq.errors import interruptible
from shared.broker.rabbitmq.write_coalescing import CorkedTransport
from shared.errors import QueueMismatch

_T = TypeVar("_T")

ANSWERED_WITHIN = 10.0
"""Seconds that RabbitMQ has for any answer."""

_CLOSING = 5.0

_FRAMES = 1_000
"""Frames that may wait on their way out, or into a channel. At the driver's ten, many publishers at
once queue up for its lock and get one turn of the loop each."""

Connection.FRAME_BUFFER_SIZE = _FRAMES


class Session:
    """A live connection with its channels. What was declared on it is declared once."""

    def __init__(self, connection: aio_pika.Connection, declarations: Declarations) -> None:
        assert connection.transport is not None, "it is connected"
        assert isinstance(connection.transport.connection, Connection)
        self._outer = connection
        self._inner = connection.transport.connection
        self._declarations = declarations
        self._declared: set[str] = set()
        self._lock = asyncio.Lock()
        self._control: Channel | None = None
        self.version = _version(self._inner.server_properties.get("version"))
        self.lost = asyncio.Event()
        self._inner.closing.add_done_callback(lambda _: self.lost.set())

    @classmethod
    async def open(cls, url: URL, declarations: Declarations) -> Session:
        """Connect. Raises `Interrupted` and `TimeoutError`."""
        connection = aio_pika.Connection(url)
        connection.kwargs["transport_factory"] = CorkedTransport()
        try:
            with interruptible():
                await connection.connect(timeout=ANSWERED_WITHIN)
                return cls(connection, declarations)
        except BaseException:
            # Cancelled in the moment it was had, or never had.
            await _close(connection)
            raise

    async def close(self) -> None:
        """Close the connection with all of its channels."""
        await _close(self._outer)
        self.lost.set()

    async def unblocked(self) -> None:
        """Wait while RabbitMQ takes no messages on this connection (an alarm of memory or disk)."""
        with interruptible():
            await self._inner.ready()

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel; on one with confirms, what is returned as unroutable raises."""
        opened: AbstractChannel | None = None
        try:
            with interruptible():
                async with asyncio.timeout(ANSWERED_WITHIN):
                    opened = await self._inner.channel(
                        publisher_confirms=confirms,
                        on_return_raises=confirms,
                        frame_buffer_size=_FRAMES,
                    )
        except BaseException:
            # Cancelled in the moment it was had.
            if opened is not None:
                await close_channel(opened)
            raise
        assert isinstance(opened, Channel)
        return opened

    async def ask(self, call: Callable[[Channel], Awaitable[_T]]) -> _T:
        """Make a call on the channel kept for questions and declarations, one at a time.

        A call that fails takes that channel with it; the next one gets another. Raises
        `Interrupted`, `TimeoutError` past 10 s, and the errors of ours that `call` raises."""
        async with self._lock:
            try:
                async with asyncio.timeout(ANSWERED_WITHIN):
                    if self._control is None or self._control.is_closed:
                        self._control = await self.channel(confirms=False)
                    with interruptible():
                        return await call(self._control)
            except BaseException:
                # One that did not answer may answer the next call with what this one asked for.
                channel, self._control = self._control, None
                if channel is not None and not channel.is_closed:
                    await close_channel(channel)
                raise

    async def declare(self, queue: str) -> None:
        """Declare `queue` unless that was done. Raises `QueueMismatch` and as `ask` does."""
        if queue in self._declared:
            return
        try:
            await self.ask(lambda channel: self._declare(channel, queue))
        except QueueMismatch as mismatch:
            if not only_limit_differs(mismatch):
                raise
            await self.ask(lambda channel: look(channel, queue))
            warn_of_limit(queue)
            self._declared.add(queue)

    async def declare_events(self) -> None:
        """Declare the topic of events unless that was done."""
        if "" not in self._declared:
            await self.ask(declare_events)
            self._declared.add("")

    def forget(self, queue: str) -> None:
        """Have `queue` declared again at its next use: it was found to be gone."""
        self._declared.discard(queue)

    def forget_events(self) -> None:
        """Have the topic of events declared again at its next use."""
        self._declared.discard("")

    async def _declare(self, channel: Channel, queue: str) -> None:
        # Many may have waited for their turn to declare the same queue.
        if queue not in self._declared:
            await self._declarations.declare(channel, queue, self.version)
            self._declared.add(queue)


async def _close(connection: aio_pika.Connection) -> None:
    for _ in range(2):
        with contextlib.suppress(Exception), interruptible():
            async with asyncio.timeout(_CLOSING):
                await connection.close()
        # One that failed to say goodbye has let go of its transport, and is closed by the second call. Left as it
        # is, the driver would begin to close it when the garbage is collected, where no loop may run.
        if connection.is_closed:
            return


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel, whatever its state: what was delivered on it and not settled goes back."""
    with contextlib.suppress(Exception), interruptible():
        async with asyncio.timeout(_CLOSING):
            await channel.close()


def _version(given: object) -> tuple[int, ...]:
    text = given.decode(errors="replace") if isinstance(given, bytes) else str(given)
    digits = text.split("-")[0].split("+")[0].split(".")
    return tuple(int(part) for part in digits if part.isdecimal())
