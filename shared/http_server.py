"""Serving HTTP without letting strangers have every descriptor of the process."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from shared.file_descriptors import descriptor_limit

IDLE_TIME = 30.0
"""Seconds in which a connection must bring the headers of its next request."""


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
            super().connection_made(transport)


class BoundedServer(web.Server):
    """A server of such connections."""

    connection_type: ClassVar[type[BoundedConnection]] = BoundedConnection

    def __call__(self) -> RequestHandler:
        """Make what a new connection is given to."""
        return self.connection_type(self, loop=self._loop, **self._kwargs)


class BoundedRunner(web.AppRunner):
    """Serves an application so; used as aiohttp's own runner is."""

    server_type: ClassVar[type[BoundedServer]] = BoundedServer

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return self.server_type(
            made.request_handler,
            request_factory=made.request_factory,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no other way to connections of one's own
            **made._kwargs,  # noqa: SLF001 - the same
        )
