"""A connection that is always being had: lost, it is made again, for ever."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import aio_pika
import structlog
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.connection import Connection, TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from shared.broker.rabbitmq.declarations import (
    Absent,
    Declarations,
    Elsewhere,
    Interrupted,
    connection_refused,
    declare_events,
    interruptible,
    look,
    only_limit_differs,
    warn_of_limit,
)
from shared.broker.rabbitmq.driver import widen
from shared.config.schema import ClientTls
from shared.errors import BrokerForbids, BrokerMisconfigured, BrokerUnavailable, QueueMismatch
from shared.model.queues import COORDINATOR_QUEUES
from shared.supervision import Backoff, Loop, waiting


class CorkedWriter:
    """A stream writer that sends what was written in one turn of the loop at once.

    The driver writes frame by frame, which costs a system call each: more than all else that it
    does for a message."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The transport beneath."""
        return self._writer.transport

    def write(self, data: bytes) -> None:
        """Send `data` soon, in order."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    async def drain(self) -> None:
        """Wait until little is left to send."""
        self._flush()
        await self._writer.drain()

    def can_write_eof(self) -> bool:
        """Return what the writer beneath says."""
        return self._writer.can_write_eof()

    def write_eof(self) -> None:
        """Send what is left, then the end."""
        self._flush()
        self._writer.write_eof()

    def is_closing(self) -> bool:
        """Return what the writer beneath says."""
        return self._writer.is_closing()

    def close(self) -> None:
        """Send what is left, then close."""
        self._flush()
        self._writer.close()

    async def wait_closed(self) -> None:
        """Wait for the writer beneath."""
        await self._writer.wait_closed()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending and not self._writer.is_closing():
            self._writer.write(b"".join(pending))


class CorkedTransport(TransportFactory):
    """Makes the driver's own transport, with a `CorkedWriter`."""

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, by TLS for `amqps`."""
        inner = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await inner.create(url, **kwargs)
        return reader, cast("asyncio.StreamWriter", CorkedWriter(writer))


_T = TypeVar("_T")

ANSWERED_WITHIN = 10.0
"""Seconds that RabbitMQ has for any answer."""

_CLOSING = 5.0

_FRAMES = 1_000
"""Frames that may wait on their way out, or into a channel. At the driver's ten, many publishers at
once queue up for its lock and get one turn of the loop each."""

Connection.FRAME_BUFFER_SIZE = _FRAMES
widen()


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
    async def open(
        cls, url: URL, declarations: Declarations, tls: ssl.SSLContext | None = None
    ) -> Session:
        """Connect. Raises `Interrupted` and `TimeoutError`."""
        connection = aio_pika.Connection(url, ssl_context=tls)
        connection.kwargs["transport_factory"] = CorkedTransport()
        try:
            with interruptible():
                await connection.connect(timeout=ANSWERED_WITHIN)
                return cls(connection, declarations)
        except BaseException as error:
            # Cancelled in the moment it was had, or never had.
            await _close(connection)
            if isinstance(error, Interrupted) and await _behind_tls(url, error):
                text = "it uses TLS at this port: broker.rabbitmq.url must begin with amqps://"
                raise Interrupted(text) from BrokerMisconfigured(text)
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
        except BrokerForbids:
            # A worker's user need have no right to make coordinators' queues where those are there.
            if queue not in COORDINATOR_QUEUES or await self.ask(
                lambda channel: _absent(channel, queue)
            ):
                raise
            self._declared.add(queue)

    async def absent(self, queue: str) -> bool:
        """Return whether there is no such queue, neither ours nor anybody's. Raises as `ask` does."""
        try:
            return await self.ask(lambda channel: _absent(channel, queue))
        except Elsewhere:
            return False

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


async def _absent(channel: Channel, queue: str) -> bool:
    try:
        await look(channel, queue)
    except Absent:
        return True
    return False


async def _close(connection: aio_pika.Connection) -> None:
    for _ in range(2):
        with contextlib.suppress(Exception), interruptible():
            async with asyncio.timeout(_CLOSING):
                await connection.close()
        # One that failed to say goodbye has let go of its transport, and is closed by the second call. Left as it
        # is, the driver would begin to close it when the garbage is collected, where no loop may run.
        if connection.is_closed:
            return


async def _behind_tls(url: URL, error: Interrupted) -> bool:
    """Return whether a server that closed a connection without TLS wants TLS."""
    if url.scheme != "amqp" or not re.search("reset|closed", str(error)):
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWERED_WITHIN):
            _, writer = await asyncio.open_connection(url.host, url.port or 5672, ssl=context)
            writer.close()
            return True
    return False


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel, whatever its state: what was delivered on it and not settled goes back."""
    with contextlib.suppress(Exception), interruptible():
        async with asyncio.timeout(_CLOSING):
            await channel.close()


def _version(given: object) -> tuple[int, ...]:
    text = given.decode(errors="replace") if isinstance(given, bytes) else str(given)
    digits = text.split("-")[0].split("+")[0].split(".")
    return tuple(int(part) for part in digits if part.isdecimal())


log = structlog.get_logger(__name__)

STEADY = 5.0
"""Seconds after which a connection counts as had: delays begin anew when it is lost."""


class RabbitConnection:
    """Keeps one connection for one purpose. `dial` makes it; `address` is for people, without
    secrets.

    Begins to connect in `start`, or with the first `session`."""

    def __init__(
        self,
        purpose: str,
        address: str,
        dial: Callable[[], Awaitable[Session]],
        backoff: Backoff,
        tls: ClientTls,
    ) -> None:
        self._purpose = purpose
        self._address = address
        self._dial = dial
        self._backoff = backoff
        self._tls = tls
        self._session: Session | None = None
        self._changed = asyncio.Event()
        self._loop: Loop | None = None
        self._refused: BrokerMisconfigured | None = None
        self._closed = False
        self._connections = 0
        self.connected: Callable[[bool], None] = lambda _first: None
        """Called at every new connection, before anyone can use it."""

    @property
    def present(self) -> Session | None:
        """The live connection, if there is one now."""
        return None if self._session is None or self._session.lost.is_set() else self._session

    async def start(self) -> None:
        """Wait for the first connection, for ever. Raises `BrokerMisconfigured` where that won't
        help."""
        self._begin(fussy=True)
        await self.session()

    async def session(self) -> Session:
        """Wait for a live connection. Raises `BrokerUnavailable` when this link is closed."""
        self._begin(fussy=False)
        while True:
            if self._closed:
                raise BrokerUnavailable("the connection to RabbitMQ was closed")
            if self._refused is not None:
                raise self._refused
            if (session := self.present) is not None:
                return session
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Close the connection and try no more; who waits is told `BrokerUnavailable`."""
        self._closed = True
        self._changed.set()
        if self._loop is not None:
            await self._loop.close()
        if self._session is not None:
            await self._session.close()

    def _begin(self, *, fussy: bool) -> None:
        if self._loop is None and not self._closed:
            keep = functools.partial(self._keep, fussy=fussy)
            self._loop = Loop("RabbitMQ connection", keep, about=self._purpose)
            self._loop.start()

    async def _keep(self, *, fussy: bool) -> None:
        while True:
            session = await self._try(fussy=fussy and not self._connections)
            if self._refused is not None:
                return
            if session is not None:
                await self._live(session)
            with waiting():
                await asyncio.sleep(self._backoff.next())

    async def _try(self, *, fussy: bool) -> Session | None:
        try:
            return await self._dial()
        except (Interrupted, TimeoutError) as error:
            cause = error.__cause__ or error
            refusal = connection_refused(cause, self._address, self._tls)
            if refusal is not None and fussy:
                self._refused = refusal
                self._changed.set()
            self._say_absent(refusal or cause)
        return None

    async def _live(self, session: Session) -> None:
        """Hold `session` until it is lost."""
        began = time.monotonic()
        self._session = session
        self._connections += 1
        log.info("connected to RabbitMQ", address=self._address, purpose=self._purpose)
        self._tell(first=self._connections == 1)
        self._changed.set()
        with waiting():
            await session.lost.wait()
        self._session = None
        await session.close()
        log.warning("the connection to RabbitMQ was lost", purpose=self._purpose)
        if time.monotonic() - began > STEADY:
            self._backoff.reset()

    def _tell(self, *, first: bool) -> None:
        try:
            self.connected(first)
        except Exception:
            log.exception("who wanted to hear of a new connection failed")

    def _say_absent(self, error: BaseException) -> None:
        log.warning(
            "waiting for RabbitMQ",
            address=self._address,
            purpose=self._purpose,
            reason=str(error) or type(error).__name__,
        )
