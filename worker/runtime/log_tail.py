"""The last lines of a log, for the error of a run that failed."""

from __future__ import annotations

LINES = 10
BYTES = 16 * 1024
"""Kept at most: a line of 100 MiB must not become an error of 100 MiB."""


class Tail:
    """Keeps the end of what was written, in bounded memory."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, data: bytes) -> None:
        """Take what was written next."""
        self._kept = (self._kept + data[-BYTES:])[-BYTES:]

    def text(self) -> str:
        """Return the last 10 lines, or what is kept of them; undecodable bytes are replaced."""
        text = self._kept.decode("utf-8", "replace").replace("\0", "\ufffd")
        return "\n".join(text.rstrip("\r\n").splitlines()[-LINES:])


def failure(what: str, tail: Tail) -> str:
    """Return `what`, followed by the last lines where there are any."""
    lines = tail.text()
    return f"{what}\n{lines}" if lines.strip() else what
