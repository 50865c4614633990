"""What threads do for loops, so that one that hangs is noticed (engine spec, Supervision).

Nothing can cut a thread short, so a loop that waits for one isn't cut short either. A thread that gives no sign of life
for long hangs, at a disk perhaps: the log says so, and `GET /health/live` names the loop that waits for it.

Whoever asks a thread in another way has a bound of its own for its answer: `make lint` knows who that is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

import structlog

from shared import supervision
from shared.supervision import current_loop, signs, waiting

log = structlog.get_logger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do something in a thread of the process; cancelled, it is done first, unless it hangs.

    It may take as long as it likes, but what may take many seconds gives signs of life: `came_round`."""
    watch, work = _begun(None, partial(function, *args, **kwargs))
    with waiting():
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await watch.end(work)
            raise


async def in_thread_of(
    threads: Executor, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """Do something in one of `threads`, with signs of life as above; cancelled, it goes on by itself."""
    _, work = _begun(threads, partial(function, *args, **kwargs))
    with waiting():
        return await asyncio.shield(work)


def _begun(threads: Executor | None, function: partial[_T]) -> tuple[_Watch, asyncio.Future[_T]]:
    watch = _Watch(function.func)
    do = partial(copy_context().run, watch.do, function)
    work = asyncio.get_running_loop().run_in_executor(threads, do)
    watch.begin(work)
    return watch, work


class _Watch:
    """Looks after what a thread does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._what = getattr(function, "__qualname__", type(function).__name__)
        self._loop = current_loop.get()
        self._sign_at: float | None = None
        """When it gave its last sign of life; None while it waits for a thread that is free."""
        self._next: asyncio.TimerHandle

    def do(self, function: Callable[[], _T]) -> _T:
        """Do it, in the thread."""
        signs.set(self._sign)
        self._sign()
        return function()

    def begin(self, work: asyncio.Future[Any]) -> None:
        """Look after `work` until it is done."""
        if self._loop is not None:
            self._loop.threads.add(self._hangs)
        work.add_done_callback(self._over)
        self._look()

    async def end(self, work: asyncio.Future[Any]) -> None:
        """Wait until `work` is done, or hangs."""
        began = time.monotonic()
        while not work.done():
            until = max(began, self._sign_at or began) + supervision.PATIENCE
            left = until - time.monotonic()
            if left <= 0:
                return
            await asyncio.wait({work}, timeout=left)

    def _sign(self) -> None:
        self._sign_at = time.monotonic()

    def _silent(self) -> float:
        return 0.0 if self._sign_at is None else time.monotonic() - self._sign_at

    def _hangs(self) -> str | None:
        return self._what if self._silent() > supervision.LIVE_WITHIN else None

    def _look(self) -> None:
        silent = self._silent()
        if silent >= supervision.PATIENCE:
            about = {} if self._loop is None else {"loop": str(self._loop)}
            log.error("a thread hangs", work=self._what, **about)
            silent = 0.0
        again = supervision.PATIENCE - silent
        self._next = asyncio.get_running_loop().call_later(again, self._look)

    def _over(self, _: asyncio.Future[Any]) -> None:
        if self._loop is not None:
            self._loop.threads.discard(self._hangs)
        self._next.cancel()
