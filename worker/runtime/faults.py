"""What can go wrong with a run, inside a runtime; outside, all of it is an `Outcome`."""

from __future__ import annotations


class TaskError(Exception):
    """The run fails, and this text is its error; with the exit code where a process gave one."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RunLostError(Exception):
    """The run vanished, or its engine did: it is to be run again, and nobody's fault."""


class RunStoppedError(Exception):
    """`stop` was called: what was under way is given up."""
