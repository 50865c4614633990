"""The errors of a run inside a runtime; outside, they become an `Outcome`."""

from __future__ import annotations

import errno

MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENFILE, errno.EMFILE}
)
"""Faults of the machine's files: no task is to blame for a full disk."""


class TaskError(Exception):
    """The run fails, and this text is its error; with the exit code where a process gave one."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RunLostError(Exception):
    """The run vanished, or its engine or its disk did: it is to be run again, and nobody's fault."""


class RunStoppedError(Exception):
    """`stop` was called: what was under way is given up."""


def of_files(error: OSError, doing: str, *, chosen: bool = False) -> TaskError | RunLostError:
    """Return the fault of a run whose files cannot be made or read: the task's, or the machine's.

    `doing`: what was to be done, as in "cannot make /x". `chosen`: the task itself named the place, and
    is to blame for one that is read-only.
    """
    machines = error.errno in MACHINE and not (chosen and error.errno == errno.EROFS)
    return (RunLostError if machines else TaskError)(f"{doing}: {error.strerror}")


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
