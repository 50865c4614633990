"""Follows the log of a job or task: first the stored lines, then new ones, without gaps or repeats."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import msgspec

from coordinator.api.context import Api
from coordinator.api.log_cursor import START, LogCursor, LogPlace, TaskKey, write_cursor
from coordinator.api.log_parts import UNTOLD, batches_after, log_size, overdue, tasks_in_turn
from coordinator.api.sharing import LookTurns
from shared.errors import StoreUnavailable
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
    log_part_id,
)
from shared.model.messages import StateChanged
from shared.model.queries import In, Where
from shared.model.states import JOB_ENDED, TASK_ENDED
from shared.supervision import beside, done_first

_WINDOW: Final = 128
"""Tasks that are followed at a time; the next one joins when one is done."""

_SETTLED: Final[Micros] = 300_000
"""Age of a task from which no older one, by another coordinator's clock, can still appear."""
_KEPT_PARTS: Final = 16 * 1024
"""Characters of parts that are kept for other followers until the next turn: long logs are read by each alone."""


class FollowedLine(msgspec.Struct, frozen=True):
    """A line with its end, or its beginning without one, the part that it is of, and the id of the event that carries
    it. Of a follower of whole parts it is all lines of the part that were not sent yet."""

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
        self,
        api: Api,
        job: JobDocument,
        task: TaskDocument | None,
        cursor: LogCursor,
        *,
        whole_parts: bool = False,
    ) -> None:
        self._api = api
        self._split = _rest if whole_parts else _unsent
        self._job = job
        self._only = task
        self._cursor = cursor
        self._tails: list[_Tail] = []
        self._known: dict[str, TaskDocument] = {}
        self._going_on: Collection[str] = ()
        """The ids of the tasks of which more is stored."""
        self._looked_at: Micros = 0
        """When that was asked: what was stored later may not be known of."""
        self._mark: TaskKey = cursor.mark
        """The last task that is done or has begun."""
        self._next: TaskKey = cursor.mark
        """The last task that was taken on."""
        self._more = task is None
        self._moved = False
        self._turns: LookTurns
        self.state = ""

    async def lines(self) -> AsyncGenerator[FollowedLine | None]:
        """Yield lines as they come; None whenever there is nothing now."""
        await self._resume()
        async with _turns(self._api, self._job.id) as turns:
            self._turns = turns
            while True:
                turn, self._moved = turns.number, False
                with suppress(StoreUnavailable):
                    async for line in self._round():
                        self._moved = True
                        yield line
                    if self._over():
                        return
                yield None
                if self._moved:
                    turns.found()
                elif await self._over_before(turns.after(turn)):
                    return

    async def _over_before(self, next_turn: Coroutine[Any, Any, None]) -> bool:
        """Wait for the next turn; tell whether the server stops before."""
        async with beside(next_turn, "next turn") as coming:
            await done_first(coming, self._api.closing.wait())
        return self._api.closing.is_set()

    async def _resume(self) -> None:
        places = {place.task_id: place for place in self._cursor.places}
        if self._only is not None:
            place = places.get(self._only.id, LogPlace(self._only.id))
            self._tails = [_Tail(place, _key(self._only))]
            return
        mark = self._cursor.mark
        where: Where = {"id": In((*places, mark[1]))}
        found = await self._api.store.find(TaskDocument, where, without=TaskDocument.heavy)
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
            if tail.skipping or task.id in self._going_on:
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
        store, read = self._api.store, self._turns.reads.read
        self._looked_at = store.now()
        if self._only is None:
            own: Where = {"id": self._job.id, "deleted_at": None}
            jobs = await read(
                "job", partial(store.find, JobDocument, own, without=JobDocument.heavy)
            )
            self.state = jobs[0].state if jobs else ""
            await self._take_on()
        ids = tuple(tail.place.task_id for tail in self._tails)
        followed: Where = {"id": In(ids)}
        ask = partial(store.find, TaskDocument, followed, without=TaskDocument.heavy)
        self._known = {task.id: task for task in (await read(ids, ask) if ids else ())}
        if self._only is not None:
            known = self._known.get(self._only.id)
            self.state = known.state if known else ""
        await self._look_for_parts()

    async def _look_for_parts(self) -> None:
        """See which of the followed logs go on, all at once: only the part after the last can be sent next."""
        places = []
        for tail in self._tails:
            task = self._known.get(tail.place.task_id)
            if task is not None and tail.place.run != task.run:
                tail.place.restart(task.run)
            if tail.place.run:
                places.append(tail.place)
        ids = tuple(log_part_id(each.task_id, each.run, each.number + 1) for each in places)
        ask = partial(self._api.store.group_count, LogPartDocument, {"id": In(ids)}, "task_id")
        self._going_on = await self._turns.reads.read(("parts", ids), ask) if ids else ()

    async def _take_on(self) -> None:
        free = _WINDOW - len(self._tails)
        if free <= 0:
            return
        settled = self._api.store.now() - _SETTLED
        ask = partial(tasks_in_turn, self._api, self._job, self._next, free)
        found = await self._turns.reads.read((self._next, free), ask)
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
        place, read = tail.place, self._turns.reads.read
        async for parts in batches_after(self._api, task, place.number, read):
            for part in parts:
                if part.number != place.number + 1 and not tail.skipping:
                    return
                for line in self._split(place, part):
                    yield line, part

    async def _done(self, tail: _Tail, task: TaskDocument) -> bool:
        if task.state not in TASK_ENDED:
            return False
        ended_at = task.ended_at or 0
        if not task.run:
            return True
        if task.log_parts is None:
            return self._looked_at - ended_at > UNTOLD * MICROS_PER_SECOND
        if tail.place.number >= task.log_parts or tail.skipping:
            return True
        tail.skipping = await overdue(self._api, ended_at, self._turns.reads.read)
        return False


def _key(task: TaskDocument) -> TaskKey:
    return (task.created_at, task.id)


def lines_of(contents: str) -> list[str]:
    """Return the lines of a part of a log, each with its end; the last may be only the beginning of a line."""
    *whole, last = contents.split("\n")
    lines = [line.removesuffix("\r") + "\n" for line in whole]
    return [*lines, last] if last else lines


def _unsent(place: LogPlace, part: LogPartDocument) -> Iterator[str]:
    """Yield the lines of a part that were not sent, having noted each as sent before it is."""
    lines = lines_of(part.contents)
    place.number = part.number - 1
    for index in range(place.line, len(lines)):
        last = index + 1 == len(lines)
        place.number, place.line = (part.number, 0) if last else (place.number, index + 1)
        yield lines[index]
    place.number, place.line = part.number, 0


def _rest(place: LogPlace, part: LogPartDocument) -> Iterator[str]:
    """Yield what of a part was not sent, as one text."""
    rest = "".join(lines_of(part.contents)[place.line :])
    place.number, place.line = part.number, 0
    if rest:
        yield rest


@asynccontextmanager
async def _turns(api: Api, job_id: str) -> AsyncIterator[LookTurns]:
    """Give the turns of all who follow a job's log; what happens to the job begins one."""
    turns = api.log_turns.setdefault(job_id, LookTurns(job_id, _worth_keeping))

    def heard(event: StateChanged) -> None:
        if event.job_id == job_id:
            turns.wake()

    async with api.listeners.listening(heard):
        try:
            async with turns:
                yield turns
        finally:
            if turns.over and api.log_turns.get(job_id) is turns:
                del api.log_turns[job_id]


def _worth_keeping(answer: Any) -> bool:
    """Tell whether an answer is kept until the next turn."""
    parts = [each for each in answer if isinstance(each, LogPartDocument)]
    return log_size(parts) <= _KEPT_PARTS
