"""Serving HTTP without letting strangers have every descriptor of the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import resource
import socket
import ssl
import sys
import termios
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import ClassVar

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from shared.supervision import Loop

IDLE_TIME = 30.0
"""Seconds in which a connection must bring the headers of its next request."""

READS_WITHIN = 30.0
"""Seconds that a client may read nothing of what waits for it, before it is let go of."""
_LOOK_EVERY = 1.0
_KERNEL_KEEPS = 256 * 1024
"""Bytes that the kernel takes for a client that does not read yet; left to itself, it takes megabytes."""
BUFFERED = 32 * 1024 * 1024
"""Bytes that may wait for clients. Past that those are let go of too for whom something waits at the third look, first
those who read nothing."""


def descriptor_limit() -> int:
    """Return how many files and connections this process may have open now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class BoundedConnection(RequestHandler):
    """A connection that is closed at once where the others have half of all descriptors already: the other half is for
    what the process itself has to do."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection up, or close it."""
        assert self._manager is not None
        if 2 * len(self._manager.connections) >= descriptor_limit():
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        else:
            _keep_little(transport)
            super().connection_made(transport)

    async def room(self) -> None:
        """Wait until so little waits for clients of the server that a big answer may be made."""
        while True:
            connections = self._manager.connections if self._manager is not None else ()
            transports = [each.transport for each in connections if each.transport is not None]
            if sum(each.get_write_buffer_size() for each in transports) <= BUFFERED:
                return
            await asyncio.sleep(_LOOK_EVERY / 10)


def _keep_little(transport: asyncio.BaseTransport) -> None:
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_KEEPS)


class BoundedServer(web.Server):
    """A server of such connections."""

    connection_type: ClassVar[type[BoundedConnection]] = BoundedConnection

    def __call__(self) -> RequestHandler:
        """Make what a new connection is given to."""
        return self.connection_type(self, loop=self._loop, **self._kwargs)


class _Waiting(msgspec.Struct, frozen=True, order=True):
    """Something waits for a client: looks since it read some of it, looks since it began, and its size in bytes."""

    unread: int = -1
    looks: int = 0
    size: int = 0

    def still(self, size: int) -> _Waiting:
        """Return what is so at the next look."""
        unread = self.unread + 1 if size >= self.size else 0
        return _Waiting(unread=unread, looks=self.looks + 1, size=size)


class StoppedReaders:
    """Lets go of clients that read nothing of what waits for them, with all that is kept for them."""

    def __init__(self, connections: Callable[[], Iterable[RequestHandler]]) -> None:
        self._connections = connections
        self._waiting: dict[asyncio.Transport, _Waiting] = {}

    async def look(self) -> None:
        """Look at all connections; called every `_LOOK_EVERY` seconds."""
        before, self._waiting = self._waiting, {}
        for connection in self._connections():
            transport = connection.transport
            if transport is not None and transport.get_write_buffer_size():
                size = transport.get_write_buffer_size() + _unread(transport)
                self._waiting[transport] = before.get(transport, _Waiting()).still(size)
        buffered = sum(transport.get_write_buffer_size() for transport in self._waiting)
        for transport, found in sorted(self._waiting.items(), key=itemgetter(1), reverse=True):
            if found.unread * _LOOK_EVERY >= READS_WITHIN or (
                buffered > BUFFERED and found.looks > 2
            ):
                buffered -= transport.get_write_buffer_size()
                del self._waiting[transport]
                transport.abort()


def _unread(transport: asyncio.Transport) -> int:
    """Return how many bytes the kernel keeps for the other end, as far as it tells."""
    try:
        found = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"0000")
    except (OSError, AttributeError):
        return 0
    return int.from_bytes(found, sys.byteorder)


class BoundedRunner(web.AppRunner):
    """Serves an application so; used as aiohttp's own runner is."""

    server_type: ClassVar[type[BoundedServer]] = BoundedServer
    _letting_go: Loop | None = None

    async def setup(self) -> None:
        """Begin to serve."""
        await super().setup()
        assert self.server is not None
        readers = StoppedReaders(lambda: self.server.connections if self.server else ())
        self._letting_go = Loop("let go of readers", readers.look, every=_LOOK_EVERY)
        self._letting_go.start()

    async def cleanup(self) -> None:
        """Serve no more."""
        if self._letting_go is not None:
            await self._letting_go.close()
        await super().cleanup()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return self.server_type(
            made.request_handler,
            request_factory=made.request_factory,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no other way to connections of one's own
            **made._kwargs,  # noqa: SLF001 - the same
        )


async def listen(
    runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None = None
) -> int:
    """Listen at every address that a host's name stands for, and return the port of the first; raises `OSError`.

    A name may stand for addresses that the machine does not have: in a container `localhost` is `::1` too, without
    IPv6. They are left out where another one serves."""
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for address in dict.fromkeys(each[4][0] for each in found):
            try:
                await web.TCPSite(runner, str(address), port, ssl_context=tls).start()
            except OSError as one:
                if one.errno != errno.EADDRNOTAVAIL:
                    raise
        if not runner.addresses:
            raise
    return int(runner.addresses[0][1])


def scraped(registry: CollectorRegistry, accept: str) -> web.Response:
    """Return the answer to a scrape, in the version of Prometheus' format that the client asks for."""
    encode, content_type = choose_encoder(accept)
    return web.Response(body=encode(registry), headers={"Content-Type": content_type})
