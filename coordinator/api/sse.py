"""Server-Sent Events (the HTML standard, Server-sent events)."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final, Self

from aiohttp import web

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, so that nobody on the way hangs up."""
_PATIENCE: Final = 60.0
"""Seconds that a reader may take none of what is sent before it is given up."""
_RECONNECT: Final = 2000
"""Milliseconds that a browser waits before it comes back."""


class EventStream:
    """An answer made of events. A context manager: entered, the headers are sent."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache, no-transform",
                "X-Accel-Buffering": "no",
            }
        )
        self._written = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether there is somebody who reads a body."""
        transport = self._request.transport
        gone = transport is None or transport.is_closing()
        return not gone and self._request.method != "HEAD"

    async def __aenter__(self) -> Self:
        await self.response.prepare(self._request)
        if self.wanted:
            await self._write(f"retry: {_RECONNECT}\n\n")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            await self.response.write_eof()
        return isinstance(error, ConnectionError)

    async def send(self, data: str, *, event: str = "", id: str = "") -> None:
        """Send an event. `ConnectionError` where the reader is gone or takes nothing for a minute."""
        lines = [f"event: {event}"] if event else []
        if id:
            lines.append(f"id: {id}")
        lines += [f"data: {line}" for line in data.replace("\r", "\n").split("\n")]
        await self._write("\n".join(lines) + "\n\n")

    async def idle(self) -> None:
        """Say that nothing happens, if nothing was sent for a while."""
        if time.monotonic() - self._written >= KEEPALIVE:
            await self._write(": still here\n\n")

    async def comment(self, text: str) -> None:
        """Send what readers don't see."""
        await self._write(f": {text}\n\n")

    async def _write(self, text: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.response.write(text.encode("utf-8", "replace"))
        except TimeoutError:
            raise ConnectionResetError("the reader takes nothing") from None
        self._written = time.monotonic()
