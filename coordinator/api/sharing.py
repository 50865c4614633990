"""What readers share, so that any number of them costs the datastore no more than one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, MutableMapping
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

from shared.supervision import Backoff, Loop, Tasks, waiting

_T = TypeVar("_T")
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0
"""Seconds between turns while nothing comes."""


class SharedReads:
    """Answers of the datastore: who asks what is asked already, or was and is kept, gets the same answer.

    `kept`: where answers stay; `worth`: tells whether one is to stay once it is there."""

    def __init__(
        self,
        kept: MutableMapping[Hashable, asyncio.Task[Any]],
        worth: Callable[[Any], bool] = lambda _: True,
    ) -> None:
        self._kept = kept
        self._worth = worth
        self._asking: dict[Hashable, asyncio.Task[Any]] = {}
        self._tasks = Tasks()

    async def read(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return what `ask` answers; `key` says what is asked. Raises what `ask` does."""
        task: asyncio.Task[_T] | None = self._kept.get(key) or self._asking.get(key)
        if task is None:
            task = self._asking[key] = self._tasks.start(ask(), "read for several")
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Keep none of the answers, nor those on their way."""
        self._kept.clear()
        self._asking.clear()

    def _answered(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if self._asking.get(key) is not task:
            return
        del self._asking[key]
        if not task.cancelled() and task.exception() is None and self._worth(task.result()):
            self._kept[key] = task


class Slices:
    """Long answers are made a slice at a time, and a round of the event loop has one slice of one answer: any number
    of long answers leaves as much room for others as one does."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def next(self) -> None:
        """Wait until the next slice may be made: those who came before have made theirs, and others had a round."""
        async with self._turn:
            await asyncio.sleep(0)


class LookTurns:
    """Turns in which all who follow one thing look at it, at once, and so with the same `reads`. A context manager:
    there are turns as long as somebody is in its block."""

    def __init__(self, about: str, worth: Callable[[Any], bool]) -> None:
        self.number = 0
        self.reads = SharedReads({}, worth)
        self._backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY, factor=1.5)
        self._woken = asyncio.Event()
        self._next = asyncio.Event()
        self._followers = 0
        self._loop = Loop("turns of readers", self._take_turns, about=about)

    @property
    def over(self) -> bool:
        """Whether nobody follows any more."""
        return not self._followers

    def wake(self) -> None:
        """Have the next turn begin soon: something has happened."""
        self._woken.set()

    def found(self) -> None:
        """Have the next turns follow each other fast: there was something new."""
        self._backoff.reset()

    async def after(self, number: int) -> None:
        """Wait until a turn later than that one has begun."""
        while self.number <= number:
            await self._next.wait()

    async def __aenter__(self) -> Self:
        self._followers += 1
        if self._followers == 1:
            self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._followers -= 1
        if self.over:
            await self._loop.close()

    async def _take_turns(self) -> None:
        while True:
            with waiting():
                await asyncio.sleep(_FIRST_DELAY)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._backoff.next() - _FIRST_DELAY):
                        await self._woken.wait()
            self._woken.clear()
            self.reads.forget()
            self.number += 1
            self._next.set()
            self._next = asyncio.Event()
