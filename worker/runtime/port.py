"""The port of a runtime, with its errors (runtime spec). One contract suite runs against all adapters."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

import msgspec

from shared.errors import RuntimeUnavailable
from shared.model import language
from shared.model.documents import RunUsage

MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENFILE, errno.EMFILE}
)
"""Faults of the machine's files: no task is to blame for a full disk."""

SCARCE = frozenset({errno.ENFILE, errno.EMFILE})
"""Those of them that pass."""


class TaskError(Exception):
    """The run fails, and this text is its error; with the exit code where a process gave one."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RunLostError(Exception):
    """The run vanished, or its engine or its disk did: it is to be run again, and nobody's fault."""


class ScarceError(RunLostError):
    """What this process lacks now and may have again soon, descriptors, was wanted for a run. It can be tried again."""


class PathHangsError(RunLostError):
    """A path that a task names does not answer. That tells nothing of what the host can do for other tasks."""


class RunStoppedError(Exception):
    """`stop` was called: what was under way is given up."""


def file_error(error: OSError, doing: str, *, chosen: bool = False) -> TaskError | RunLostError:
    """Return the fault of a run whose files cannot be made or read: the task's, or the machine's.

    `doing`: what was to be done, as in "cannot make /x". `chosen`: the task itself named the place, and
    is to blame for one that is read-only.
    """
    said = f"{doing}: {error.strerror}"
    if error.errno in SCARCE:
        return ScarceError(said)
    machines = error.errno in MACHINE and not (chosen and error.errno == errno.EROFS)
    return (RunLostError if machines else TaskError)(said)


_HOSTS_WORDS = (
    "no space left on device",
    "disk quota exceeded",
    "too many open files",
    "cannot allocate memory",
    "input/output error",
    "resource temporarily unavailable",
)
_NO_ADDRESSES = (  # are left for a network: Docker's words, those of its later versions, and Podman's
    "non-overlapping ipv4 address pool",
    "address pools have been fully subnetted",
    "free subnet from subnet pools",
)


def is_hosts(error: Exception) -> bool:
    """Return whether a fault of a run's preparation is the host's, and not the task's."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in MACHINE
    return isinstance(error, RunLostError | RuntimeUnavailable | MemoryError) or says_hosts(
        str(error)
    )


def says_hosts(words: str) -> bool:
    """Return whether an engine's words tell of its host's fault."""
    return says_no_addresses(words) or _has_any(words, _HOSTS_WORDS)


def says_no_addresses(words: str) -> bool:
    """Return whether an engine's words tell that its host has no addresses left for a network."""
    return _has_any(words, _NO_ADDRESSES)


def _has_any(words: str, wanted: Iterable[str]) -> bool:
    lower = " ".join(words.lower().split())
    return any(word in lower for word in wanted)


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A task to run, and for whom. `task` is evaluated: no template is left in it."""

    task_id: str
    job_id: str
    node_id: str
    nonce: str
    attempt: int
    task: language.TaskDefinition
    slot: int = 0
    """Number of the worker's slot that runs it: what is kept warm is kept per slot."""
    trace: str = ""
    """The `traceparent` that the task sees; empty where nothing is traced."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run.

    Exactly one of these holds: it is `lost`, and `error` says why; `error` is None (it succeeded); it
    is a text (it failed).
    """

    error: str | None = None
    result: str | None = None
    exit_code: int | None = None
    usage: RunUsage | None = None
    unprepared: bool = False
    """Lost, because this host (its disk, its descriptors, its engine) could not make it ready, and perhaps no other run
    either."""
    lost: bool = False
    """The container vanished and nobody of ours removed it, or the engine or the worker's disk is gone: run it
    again."""


class Sink(Protocol):
    """Where a run's output goes."""

    async def write(self, data: bytes) -> None:
        """Take bytes of the log, cut anywhere. Waits where it can't be taken as fast."""

    async def progress(self, percent: float) -> None:
        """Take a new value of progress, 0 to 100."""

    async def redacted(self, text: str) -> str:
        """Return a part of the log without the secrets in it."""


class Run(Protocol):
    """One run, prepared. Nothing of the task's has been started yet."""

    async def run(self) -> Outcome:
        """Start it, wait for its end, and return that. Called once.

        Never raises for a fault of the task's, of an image or of the engine: that is an `Outcome`.
        What was made for it is removed by `remove`, so that the end can be reported first.
        """

    async def stop(self, reason: str) -> None:
        """End it: SIGTERM, the stop timeout, SIGKILL, the whole tree.

        `run` then returns an Outcome whose error is `reason`. May be called before, during and
        after `run`, and more than once; returns when it has ended.
        """

    async def remove(self) -> None:
        """Remove all that was made for it (containers, volumes, networks, folders).

        Called once, after `run` or instead of it. Never raises: what could not be removed now is
        removed by `sweep`.
        """


class Runtime(Protocol):
    """A way of running tasks. Blocking work is kept off the event loop."""

    async def start(self) -> None:
        """Find the engine and look at what it can do.

        `RuntimeUnavailable` says what is missing and what to do.
        """

    def warm_up(self) -> None:
        """Begin to keep warm what runs need, in the background. May be called more than once.

        Not before the coordinators know this worker's node: what an unknown one left may be a live
        one's, and would stay for ever.
        """

    async def prepare(self, assignment: Assignment, sink: Sink) -> Run:
        """Make ready what can be made without starting anything of the task's.

        The image is pulled, the container created. Never raises for a fault of the task's or an
        image's: the returned run then gives that error as its Outcome. Cancelling it removes what
        it made. The task's own timeout counts from here (pull, pre, main and post together).
        """

    async def sweep(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], mine: str
    ) -> int:
        """Remove what nodes left behind that `dead` says are dead, by the labels on it.

        Never what is `mine` (a node id) or not ours. Returns how many things were removed. Raises
        `RuntimeUnavailable` where the engine is away meanwhile.
        """

    async def ping(self) -> None:
        """Return if the engine answers; raise `RuntimeUnavailable` with the reason if not."""

    async def close(self) -> None:
        """Remove what is kept warm, and close connections."""
