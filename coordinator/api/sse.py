"""Server-Sent Events (the HTML standard, Server-sent events)."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from coordinator.api.context import api_of

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, so that nobody on the way hangs up."""
_RECONNECT: Final = 2000
"""Milliseconds that a browser waits before it comes back."""
_TOGETHER: Final = 16 * 1024
"""Characters of events that are put together before they are written, at the most."""


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
        self._gathered: list[str] = []
        self._gathered_size = 0

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
        """Send an event, behind those that were gathered.

        `ConnectionError` where the reader is gone, or was let go of because it reads nothing."""
        await self.gather(data, event=event, id=id)
        await self.flush()

    async def gather(self, data: str, *, event: str = "", id: str = "") -> None:
        """Let an event wait until there are many or `flush` is called: a write for each costs more than the event.

        Errors as for `send`."""
        lines = [f"event: {event}"] if event else []
        if id:
            lines.append(f"id: {id}")
        lines += [f"data: {line}" for line in data.replace("\r", "\n").split("\n")]
        text = "\n".join(lines) + "\n\n"
        self._gathered.append(text)
        self._gathered_size += len(text)
        if self._gathered_size >= _TOGETHER:
            await self.flush()
            await api_of(self._request).slices.next()

    async def flush(self) -> None:
        """Send what was gathered. Errors as for `send`."""
        if self._gathered:
            text = "".join(self._gathered)
            self._gathered, self._gathered_size = [], 0
            await self._write(text)

    async def idle(self) -> None:
        """Say that nothing happens, if nothing was sent for a while."""
        if time.monotonic() - self._written >= KEEPALIVE:
            await self._write(": still here\n\n")

    async def _write(self, text: str) -> None:
        await self.response.write(text.encode("utf-8", "replace"))
        self._written = time.monotonic()
