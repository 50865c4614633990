"""Paths of this host that tasks name: the source of a bind, a `workdir`.

One may be on a disk that hangs for good, a dead file server's perhaps, and nothing can cut short the thread that asks
for it. So such paths have threads of their own, of which each disk gets a part, and whoever asks waits only so long: a
disk that hangs holds up nobody who asks for another one, and none of what else threads of this process do.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import psutil

from shared.supervision import Tasks, current_loop, start_task, waiting
from shared.threads import in_thread, in_thread_of
from worker.runtime.port import PathHangsError

_T = TypeVar("_T")

PATH_ANSWERS_WITHIN = 10.0
"""Seconds that a path has to answer."""

PATH_THREADS = 32
"""Paths that can hang at a time; while so many do, no other is looked at."""

PATH_THREADS_OF_DISK = 4
"""Those of them that one disk can take up."""


class HostPaths:
    """Asks for paths in threads that may hang."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PATH_THREADS, thread_name_prefix="host path")
        self._free = asyncio.Semaphore(PATH_THREADS)
        self._free_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By disk."""
        self._left = Tasks()
        """Questions that nobody waits for any more."""

    async def ask(
        self, path: str, what: str, do: Callable[[], _T], undo: Callable[[], object] | None = None
    ) -> _T:
        """Do something to `path`, which an error calls `what`. Raises PathHangsError where there is no answer soon.

        What is then done after all, once the disk answers again, is undone in the same thread by `undo`; so it is where
        this was cancelled. Whoever asks undoes what was done in time."""
        question = _Question(what, do, undo)
        asking = start_task(self._answer(path, question), "ask for a path")
        try:
            with waiting():
                await asyncio.wait({asking}, timeout=PATH_ANSWERS_WITHIN)
        finally:
            if not asking.done():
                self._leave(asking, question)
        if not question.left:
            asking.result()
            return question.answer()
        if question.begun:
            said = f"{what} has not answered for {PATH_ANSWERS_WITHIN:g} s: the disk that it is on hangs"
        else:
            said = f"{what} can't be looked at: other paths have not answered for {PATH_ANSWERS_WITHIN:g} s"
        raise PathHangsError(said)

    async def close(self) -> None:
        """Wait for nothing any more; threads that hang go on by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._left.cancel()

    # --- inside ---

    async def _answer(self, path: str, question: _Question[_T]) -> None:
        current_loop.set(None)  # who asks gives up in time: no loop is stuck because of it
        disk = await in_thread(disk_of, path)
        free = self._free_of.setdefault(disk, asyncio.Semaphore(PATH_THREADS_OF_DISK))
        async with free, self._free:  # until the thread is, however long that is
            question.begun = True
            await in_thread_of(self._threads, question)

    def _leave(self, asking: asyncio.Task[None], question: _Question[_T]) -> None:
        question.left = True
        self._left.adopt(asking)
        if not question.begun:
            asking.cancel()
        elif (
            question.is_done()
        ):  # in this very moment: its thread may not have seen that nobody waits
            self._threads.submit(question.undo)


class _Question(Generic[_T]):
    """What is done to a path, in a thread."""

    def __init__(self, what: str, do: Callable[[], _T], undo: Callable[[], object] | None) -> None:
        self.__qualname__ = what  # as the log is to call it while it hangs
        self._do = do
        self._undo = undo
        self._undoing = Lock()
        self._done: Future[_T] = Future()
        self.begun = False
        self.left = False
        """Whether nobody waits for it any more."""

    def __call__(self) -> None:
        """Do it, in the thread."""
        try:
            self._done.set_result(self._do())
        except Exception as error:
            self._done.set_exception(error)
        if self.left:
            self.undo()

    def undo(self) -> None:
        """Undo what was done, once, whoever is first to see that nobody waits for it."""
        if self._undo is not None and self._undoing.acquire(blocking=False):
            self._undo()

    def is_done(self) -> bool:
        """Return whether the thread has done it."""
        return self._done.done()

    def answer(self) -> _T:
        """Return what that gave, or raise it."""
        return self._done.result()


def disk_of(path: str) -> str:
    """Return where the disk of a path is mounted, as its name tells: nothing of it is touched. The path itself, where
    that is the root's disk: it may be a link to any other."""
    named = posixpath.normpath(path)
    try:
        mounted = [disk.mountpoint for disk in psutil.disk_partitions(all=True)]
    except OSError:  # no descriptor is left
        return named
    above = [point for point in mounted if point != "/" and f"{named}/".startswith(f"{point}/")]
    return max(above, key=len, default=named)
