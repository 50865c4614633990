"""The errors of the client."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class HaulierError(Exception):
    """Anything that the client or the command can't do; the message says what to do about it."""


class MisuseError(HaulierError):
    """What was asked can't be meant: a URL that is none, an option that does not fit."""


class StrangeAnswerError(HaulierError):
    """The server's answer is not what Haulier answers."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"the server's answer makes no sense: {reason}: is it Haulier?")


class UnreachableError(HaulierError):
    """The server at `server` can't be reached, or does not answer in time."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"can't reach {server}: {reason}")
        self.server = server
        self.reason = reason


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a document that was sent, and where: line and column from 1, if known."""

    path: str = ""
    message: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ApiError(HaulierError):
    """The server rejected a request: `status` is the HTTP status, `message` the server's message, `faults` what it
    found wrong with a document."""

    def __init__(self, status: int, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.faults = tuple(faults)
