"""Follows the log of a job or task: first the stored lines, then new ones, without gaps or repeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from coordinator.api.context import Api
from coordinator.api.log_cursor import START, LogCursor, LogPlace, TaskKey, write_cursor
from coordinator.api.log_parts import READ_BATCH, UNTOLD, overdue, parts_after, tasks_in_turn
from coordinator.api.sse import listening
from shared.backoff import Backoff
from shared.errors import StoreUnavailable
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
)
from shared.model.messages import StateChanged
from shared.model.states import JOB_ENDED, TASK_ENDED
from shared.supervision import beside, done_first

_WINDOW: Final = 128
"""Tasks that are followed at a time; the next one joins when one is done."""

_SETTLED: Final[Micros] = 300_000
"""Age of a task from which no older one, by another coordinator's clock, can still appear."""
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0
"""Seconds between looks while nothing comes."""


class FollowedLine(msgspec.Struct, frozen=True):
    """A line without its end, the part that it is of, and the id of the event that carries it."""

    text: str
    part: LogPartDocument
    id: str


class _Tail(msgspec.Struct):
    """The position in the log of one task."""

    place: LogPlace
    key: TaskKey
    skipping: bool = False
    """Its missing parts were given up."""


class Follower:
    """Yields the lines of a job's log, or of one task of it, from `cursor` on.

    `lines` yields None whenever there is nothing now, and ends with the log. `state` is then that
    of the job or task, empty where it was deleted.
    """

    def __init__(
        self, api: Api, job: JobDocument, task: TaskDocument | None, cursor: LogCursor
    ) -> None:
        self._api = api
        self._job = job
        self._only = task
        self._cursor = cursor
        self._tails: list[_Tail] = []
        self._known: dict[str, TaskDocument] = {}
        self._mark: TaskKey = cursor.mark
        """The last task that is done or has begun."""
        self._next: TaskKey = cursor.mark
        """The last task that was taken on."""
        self._more = task is None
        self._moved = False
        self.state = ""

    async def lines(self) -> AsyncIterator[FollowedLine | None]:
        """Yield lines as they come; None whenever there is nothing now."""
        await self._resume()
        backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY, factor=1.5)
        async with _woken(self._api, self._job.id) as woken:
            while True:
                woken.clear()
                self._moved = False
                with suppress(StoreUnavailable):
                    async for line in self._round():
                        self._moved = True
                        yield line
                    if self._over():
                        return
                yield None
                if self._moved:
                    backoff.reset()
                if await self._paused(woken, 0 if self._moved else backoff.next()):
                    return

    async def _paused(self, woken: asyncio.Event, delay: float) -> bool:
        """Wait for a change or for `delay` seconds; tell whether the server stops."""
        async with beside(woken.wait(), "woken") as waking:
            await done_first(waking, self._api.closing.wait(), timeout=delay)
        return self._api.closing.is_set()

    async def _resume(self) -> None:
        places = {place.task_id: place for place in self._cursor.places}
        if self._only is not None:
            place = places.get(self._only.id, LogPlace(self._only.id))
            self._tails = [_Tail(place, _key(self._only))]
            return
        mark = self._cursor.mark
        found = await self._api.store.get_many(
            TaskDocument, list(dict.fromkeys([*places, mark[1]]))
        )
        if not self._is_of_this_job(mark, found):
            self._mark = self._next = START
            return
        self._tails = [_Tail(places[task.id], _key(task)) for task in found if task.id in places]
        self._tails.sort(key=lambda tail: tail.key)

    def _is_of_this_job(self, mark: TaskKey, found: list[TaskDocument]) -> bool:
        """Tell whether a cursor with this mark, whose tasks these are, was given out by this job's stream."""
        own = [_key(task) for task in found if task.job_id == self._job.id]
        return len(own) == len(found) and (mark == START or mark in own)

    async def _round(self) -> AsyncIterator[FollowedLine]:
        await self._look()
        for tail in list(self._tails):
            task = self._known.get(tail.place.task_id)
            if task is None:
                self._tails.remove(tail)
                continue
            async for text, part in self._drain(tail, task):
                self._mark = max(self._mark, tail.key)
                yield FollowedLine(text, part, self._id())
            if await self._done(tail, task):
                self._mark = max(self._mark, tail.key)
                self._tails.remove(tail)
                self._moved = True

    def _id(self) -> str:
        places = (tail.place for tail in self._tails if tail.key <= self._mark)
        return write_cursor(self._mark, places)

    async def _look(self) -> None:
        """See how the job and the followed tasks are, and take on more tasks."""
        store = self._api.store
        if self._only is None:
            job = await store.get(JobDocument, self._job.id)
            self.state = job.state if job is not None and job.deleted_at is None else ""
            await self._take_on()
        ids = [tail.place.task_id for tail in self._tails]
        self._known = {task.id: task for task in await store.get_many(TaskDocument, ids)}
        if self._only is not None:
            known = self._known.get(self._only.id)
            self.state = known.state if known else ""

    async def _take_on(self) -> None:
        free = _WINDOW - len(self._tails)
        if free <= 0:
            return
        settled = self._api.store.now() - _SETTLED
        found = await tasks_in_turn(self._api, self._job, self._next, free)
        new = [task for task in found if task.created_at <= settled]
        self._more = len(new) < len(found) or len(found) == free
        self._tails += [_Tail(LogPlace(task.id), _key(task)) for task in new]
        if new:
            self._next = _key(new[-1])

    def _over(self) -> bool:
        if self._tails:
            return False
        if self._only is not None or not self.state:
            return True
        return self.state in JOB_ENDED and not self._more

    async def _drain(
        self, tail: _Tail, task: TaskDocument
    ) -> AsyncIterator[tuple[str, LogPartDocument]]:
        """Yield the lines that can be sent now, in order, having noted each as sent."""
        place = tail.place
        if place.run != task.run:
            place.restart(task.run)
        more = task.run > 0
        while more:
            parts = await parts_after(self._api, task, place.number)
            more = len(parts) == READ_BATCH
            for part in parts:
                if part.number != place.number + 1 and not tail.skipping:
                    return
                for line in _unsent(place, part):
                    yield line, part

    async def _done(self, tail: _Tail, task: TaskDocument) -> bool:
        if task.state not in TASK_ENDED:
            return False
        ended_at = task.ended_at or 0
        if not task.run:
            return True
        if task.log_parts is None:
            return self._api.store.now() - ended_at > UNTOLD * MICROS_PER_SECOND
        if tail.place.number >= task.log_parts or tail.skipping:
            return True
        tail.skipping = await overdue(self._api, ended_at)
        return False


def _key(task: TaskDocument) -> TaskKey:
    return (task.created_at, task.id)


def lines_of(contents: str) -> list[str]:
    """Return the lines of a part of a log, without their ends."""
    lines = contents.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _unsent(place: LogPlace, part: LogPartDocument) -> Iterator[str]:
    """Yield the lines of a part that were not sent, having noted each as sent before it is."""
    lines = lines_of(part.contents)
    place.number = part.number - 1
    for index in range(place.line, len(lines)):
        last = index + 1 == len(lines)
        place.number, place.line = (part.number, 0) if last else (place.number, index + 1)
        yield lines[index]
    place.number, place.line = part.number, 0


@asynccontextmanager
async def _woken(api: Api, job_id: str) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set whenever something happens to the job."""
    woken = asyncio.Event()

    def heard(event: StateChanged) -> None:
        if event.job_id == job_id:
            woken.set()

    async with listening(api, heard):
        yield woken
