"""Starts and ends a process: flags, configuration, logging, event loop, exit code."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, Final

import structlog

from shared.config.flags import Flags, FlagsCommand, ProcessRole
from shared.config.load import load
from shared.config.schema import Config
from shared.errors import ApplicationError
from shared.telemetry import configure_logging, tracing

CAN_NOT_START: Final = 2
INTERRUPTED: Final = 130

GARBAGE = (50_000, 20, 50)
"""Thresholds of the collector. A daemon makes and drops many objects for each message and hardly a cycle: at Python's
own thresholds looking for cycles takes a tenth of its time."""

_THREADS_END_WITHIN: Final = 1.0
"""Seconds that threads have to end once all else has."""

FOUND_LIMIT: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""Files and connections that this process could have open when it was started. Tasks get this limit: there are
programs that close, or make a table of, as many as they may open."""

ProcessMain = Callable[[Config], Coroutine[Any, Any, int]]
"""A process's whole life: returns its exit code once it has stopped in order."""


def process_command(role: ProcessRole, find: Callable[[], ProcessMain]) -> FlagsCommand:
    """Return the command that runs a process of `role` until it ends, and exits with its code.

    `find` gives what to run once the configuration is known to be good, so that a wrong flag is
    answered without loading all of the program. What keeps it from starting is said on stderr, in
    a line for each fault and without a traceback: exit code 2.
    """

    def run(flags: Flags) -> int:
        others = frozenset(threading.enumerate())
        return _ended(_start(role, flags, find), others)

    return FlagsCommand(role, run)


def _start(role: ProcessRole, flags: Flags, find: Callable[[], ProcessMain]) -> int:
    try:
        loaded = load(flags.overrides, file=flags.file, role=role)
        repeats = configure_logging(loaded.config.logging.level, loaded.config.logging.format)
        log = structlog.get_logger(__name__)
        for warning in loaded.warnings:
            log.warning(warning)
        log.debug("configuration read", file=str(loaded.file) if loaded.file else None)
        raise_descriptor_limit()
        run = find()
        with ExitStack() as stack:
            stack.callback(repeats.tell)
            stack.enter_context(tracing(loaded.config.telemetry, role))
            return _run(run, loaded.config)
    except ApplicationError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in _OF_THE_USER:
            raise
        return _refuse(error.strerror or str(error))
    except KeyboardInterrupt:
        return INTERRUPTED


_OF_THE_USER: Final = frozenset(
    {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EROFS, errno.ENOSPC}
)
"""Faults of a machine that its user can put right: no traceback helps there."""


def _run(run: ProcessMain, config: Config) -> int:
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(run(config))


def _ended(code: int, others: Collection[threading.Thread]) -> int:
    """Return `code`. Where threads of this process wait for somebody who hangs, whom Python would wait for too,
    end it at once. `others`: threads that were there before it began."""
    until = time.monotonic() + _THREADS_END_WITHIN
    for thread in threading.enumerate():
        if thread not in others and not thread.daemon:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    return code


class _Threads(ThreadPoolExecutor):
    """Threads of an event loop, which its end does not wait for: `_ended` does, and not for one that hangs."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def _new_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    loop.set_default_executor(_Threads(thread_name_prefix="asyncio"))
    return loop


def _refuse(message: str) -> int:
    for line in message.splitlines():
        print(f"haulier: {line}", file=sys.stderr)  # noqa: T201  (the log may not be set up yet)
    return CAN_NOT_START


def raise_descriptor_limit() -> None:
    """Let this process open as many files and connections as the machine's administrator allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS names a hard limit that it does not give
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
