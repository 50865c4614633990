"""The errors of the client."""

from __future__ import annotations


class HaulierError(Exception):
    """Anything that the client or the command can't do; the message says what to do about it."""


class UnreachableError(HaulierError):
    """The server at `server` can't be reached, or does not answer in time."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"can't reach {server}: {reason}")
        self.server = server
        self.reason = reason


class ApiError(HaulierError):
    """The server rejected a request: `status` is the HTTP status, `message` the server's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
