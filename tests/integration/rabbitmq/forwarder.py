"""A line to a server that can be laid, and cut."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from yarl import URL

from devservices.places import LOOPBACK, free_port


class Forwarder:
    """Passes on what comes to `url`, while it is entered."""

    def __init__(self, url: str) -> None:
        self._to = URL(url)
        self._port = free_port()
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return str(self._to.with_host(LOOPBACK).with_port(self._port))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for line in tuple(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)
        there, back = await asyncio.open_connection(self._to.host, self._to.port)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            writer.close()
            back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()
