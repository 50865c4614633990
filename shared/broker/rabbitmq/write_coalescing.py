"""Frames of one moment go out in one write."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL


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
