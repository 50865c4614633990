"""Ctrl-C: while code is being loaded, and while an event loop runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from haulier.cli import leave

if TYPE_CHECKING:
    import asyncio

_AGAIN_AFTER: Final = 1.0
"""Seconds after the first Ctrl-C, from which on another one waits for nothing."""


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Have Ctrl-C end the process while the block runs, which only loads code.

    An exception would be lost where the import system calls back, and the command would go on.
    """
    before = signal.getsignal(signal.SIGINT)
    _handle(leave if before is signal.default_int_handler else before)
    try:
        yield
    finally:
        _handle(before)


class Interruption:
    """Has the first Ctrl-C of the block cancel a task of its event loop, and the next ones do nothing.

    asyncio raises the second wherever the loop stands; what it was about to call is then lost, and it may wait for that
    for ever. One that comes a second later ends the process by `leave`.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._task: asyncio.Task[Any] | None = None
        self._since: float | None = None

    @property
    def came(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._since is not None

    def cancels(self, task: asyncio.Task[Any] | None) -> None:
        """Name the task that it cancels."""
        self._task = task
        if self.came:
            self._cancel()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for it while the block runs; once it came, none is heard any more."""
        before = signal.getsignal(signal.SIGINT)
        _handle(self._hear if before is signal.default_int_handler else before)
        try:
            yield
        finally:
            _handle(signal.SIG_IGN if self.came else before)

    def _hear(self, *_: object) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self._cancel()
        elif time.monotonic() - self._since > _AGAIN_AFTER:
            self._leave()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(RuntimeError):  # the loop is closed already
                self._task.get_loop().call_soon_threadsafe(lambda: None)  # it may be waiting


def _handle(by: Any) -> None:
    with suppress(ValueError):  # in a thread, which no signal reaches
        signal.signal(signal.SIGINT, by)
