"""Reads a container's output as it is written: the engine's multiplexed stream of stdout and stderr.

Attached before the start, it holds everything, in order, and is the only copy: the engine is told
to keep no log. A reader that is slow slows the container, and nothing piles up anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any

CHUNK = 256 * 1024
_HEADER = 8
_PATIENCE = 20.0
"""Seconds that a thread waits for data at a time: it must not outlive the runtime for longer."""


class Stream:
    """One attached stream."""

    def __init__(self, attached: Any) -> None:
        """`attached`: what the SDK's `attach_socket` gives."""
        self._attached = attached  # keeps the response, and so the connection, open
        self._tls = attached if isinstance(attached, ssl.SSLSocket) else None
        self._socket: socket.socket | None = None
        if self._tls is None:
            self._socket = socket.socket(fileno=_duplicate(attached))
            self._socket.setblocking(False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give what is printed, without the engine's framing, until the stream ends."""
        frames = Frames()
        while data := await self._receive():
            if text := frames.feed(data):
                yield text

    async def _receive(self) -> bytes:
        try:
            if self._socket is not None:
                return await asyncio.get_running_loop().sock_recv(self._socket, CHUNK)
            return await self._receive_tls()
        except OSError:
            return b""

    async def _receive_tls(self) -> bytes:
        assert self._tls is not None
        self._tls.settimeout(_PATIENCE)
        while True:
            with contextlib.suppress(TimeoutError):
                return await asyncio.to_thread(self._tls.recv, CHUNK)

    def close(self) -> None:
        """Let go of it."""
        if self._socket is not None:
            self._socket.close()
        # The SDK keeps the response at the socket; closing that closes all that is under it.
        getattr(self._attached, "_response", self._attached).close()


def _duplicate(attached: Any) -> int:
    return socket.dup(attached.fileno())


class Frames:
    """Takes apart the frames of a stream, wherever it is cut."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Return what the frames in `data` hold, joined."""
        parts = []
        position, end = 0, len(data)
        while position < end:
            if self._left:
                part = data[position : position + self._left]
                parts.append(part)
                self._left -= len(part)
                position += len(part)
            else:
                position = self._begin(data, position)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin(self, data: bytes, position: int) -> int:
        wanted = _HEADER - len(self._header)
        self._header += data[position : position + wanted]
        if len(self._header) == _HEADER:
            (self._left,) = struct.unpack(">xxxxL", self._header)
            self._header = b""
        return position + wanted
