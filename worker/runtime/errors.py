"""What can go wrong with a run, inside a runtime; outside, all of it is an `Outcome`."""

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
