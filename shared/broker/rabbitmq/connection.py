"""A connection that is always being had: lost, it is made again, for ever."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable

import structlog

from shared.backoff import Backoff
from shared.broker.rabbitmq.declarations import Interrupted, connection_refused
from shared.broker.rabbitmq.session import Session
from shared.errors import BrokerMisconfigured, BrokerUnavailable
from shared.supervision import Loop, waiting

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
    ) -> None:
        self._purpose = purpose
        self._address = address
        self._dial = dial
        self._backoff = backoff
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
            refusal = connection_refused(cause, self._address)
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
