"""Server-Sent Events, read by a thread while a test goes on."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit


class Stream:
    """What a stream has sent so far."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self._answer:
                self.lines.append(line.decode().rstrip("\n"))
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            return

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)

    @property
    def events(self) -> list[Any]:
        """The data of all events so far, decoded."""
        return [json.loads(line[5:]) for line in self.lines if line.startswith("data:")]


@contextmanager
def streaming(url: str) -> Iterator[Stream]:
    """Read a stream until the block is left; it is open when the block begins."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
    answer_socket = connection.sock
    answer = connection.getresponse()
    assert answer.status == 200
    try:
        yield Stream(answer)
    finally:
        with suppress(OSError):
            answer_socket.shutdown(socket.SHUT_RDWR)
        connection.close()
