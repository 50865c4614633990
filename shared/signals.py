"""Signal handlers of a process.

SIGTERM and SIGINT: the first asks it to stop in order, the second ends it at once (engine spec, promise 8). SIGUSR1:
it says on stderr where each of its tasks stands.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import structlog

from shared.supervision import beside, done_first, present

log = structlog.get_logger(__name__)

_AT_ONCE = 130
"""Exit code of a process that was told twice."""


class StopSignal:
    """Set once the process was asked to stop. Made inside a running event loop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._heard, number)
        loop.add_signal_handler(signal.SIGUSR1, show_tasks)

    def _heard(self, number: int) -> None:
        if self._asked.is_set():
            log.warning("stopping at once")
            os._exit(_AT_ONCE)
        log.info("stopping", signal=signal.Signals(number).name)
        self._asked.set()

    async def lets(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await `work`, unless the process is asked to stop first: then cut it short, and return False."""
        async with beside(work, "start") as working, beside(self.wait(), "stop") as stopping:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
                return True
            await stopping
            return False

    async def wait(self) -> None:
        """Return when the process was asked to stop. Raises `CannotGoOn` where it must."""
        async with beside(present.get().wait_failed(), "failure") as failed:
            if await done_first(failed, self._asked.wait()):
                await failed


def show_tasks() -> None:
    """Write to stderr where each task of the running event loop stands."""
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        task.print_stack(file=sys.stderr)
