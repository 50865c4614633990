"""Creates the jobs of schedules that are due: one for each firing, however many coordinators run."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec
import structlog

from coordinator.due.fair_order import in_turn
from coordinator.effects import FlowDriver
from coordinator.effects.flow_driver import ready_to_hide
from coordinator.engine import job_ends, job_lifecycle, schedule_firings
from coordinator.engine.given_up import is_given_up
from coordinator.engine.schedule_firings import Judge
from coordinator.store.port import Below, Change
from shared.errors import ApplicationError, StoreUnavailable
from shared.model.declared_secrets import hidden_values
from shared.model.documents import (
    MICROS_PER_SECOND,
    Intent,
    JobDocument,
    Micros,
    ScheduleDocument,
    TombstoneDocument,
)
from shared.model.states import JOB_ENDED, ScheduleState
from shared.supervision import Loop, came_round

log = structlog.get_logger(__name__)

_Work = Callable[[ScheduleDocument, Judge], Coroutine[Any, Any, None]]

_EVERY = 0.5
"""Seconds between looks."""

DUE_READ: Final = 1_000
"""Schedules that are read at once, without what they make, and fire in turn by user; another such batch follows until
none is due."""

FIRED_AT_ONCE: Final = 16
"""Firings made side by side."""

FOLLOWED_FOR: Final = 0.2
"""Seconds that a firing's place is kept while its job begins, which then goes on by itself."""

PUT_OFF_FOR: Final[Micros] = 300 * MICROS_PER_SECOND
"""How long at most a schedule that can't fire is left alone: it is to keep no other from firing."""

WAITS_FOR: Final[Micros] = 5 * MICROS_PER_SECOND
"""At most so long between looks at whether the job has ended that a firing waits for."""

SLEPT: Final[Micros] = 10 * MICROS_PER_SECOND
"""By so much the store's clock is ahead of a process that slept, or was stopped, meanwhile."""


class Awake:
    """Since when this process has been awake, by the store's clock."""

    def __init__(self, now: Callable[[], Micros], clock: Callable[[], float]) -> None:
        self._now = now
        self._clock = clock
        self.since = now()
        self._seen = (self.since, clock())

    def look(self) -> Micros:
        """Return the store's time; where more of it passed than this process was there for, it has just woken up."""
        before, now = self._seen, (self._now(), self._clock())
        if now[0] - before[0] > (now[1] - before[1]) * MICROS_PER_SECOND + SLEPT:
            self.since = now[0]
        self._seen = now
        return now[0]


class ScheduleTimer:
    """Makes the jobs of schedules that are due. First a firing is decided, by the write that moves the schedule on;
    then its job is stored, under an id that follows from the firing: whatever dies between, others make that one job.

    A firing that comes late is made all the same (engine spec, Due work: Late is done late), unless nobody was awake
    when it was due: then `catchup` decides."""

    def __init__(self, driver: FlowDriver, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._store = driver.store
        self._clock = clock
        self._awake: Awake | None = None
        self._places = asyncio.Semaphore(FIRED_AT_ONCE)
        self._loop = Loop("schedules", self.fire_due, every=_EVERY)

    def start(self) -> None:
        """Start making the jobs of schedules that are due, in the background."""
        self._loop.start()

    async def close(self) -> None:
        """Make no more jobs, cutting a round short."""
        await self._loop.close()

    async def fire_due(self) -> None:
        """Make the jobs that are due by now, and move their schedules on, until none is left. This process counts as
        awake from its first look on."""
        if self._awake is None:
            self._awake = Awake(self._store.now, self._clock)
        while True:
            judge = Judge(self._awake.look(), self._awake.since)
            mine = _by_turns([each for each in await self._due(judge) if judge.is_mine(each)])
            left = _by_turns(
                await self._store.overdue(
                    ScheduleDocument, judge.now, DUE_READ, ScheduleDocument.sealed
                )
            )
            await asyncio.gather(
                *(self._try(self._fire, each, judge) for each in mine),
                *(self._try(self._take_up, each, judge) for each in left),
            )
            came_round()
            if not mine and not left:
                return

    async def _due(self, judge: Judge) -> Sequence[ScheduleDocument]:
        """Return schedules that are due: those first that are this coordinator's to fire."""
        where = {"state": ScheduleState.ACTIVE, "next_at": Below(judge.now + 1)}
        order = ("next_at",) if judge.all_are_mine else ("-next_at",)
        return await self._store.find(
            ScheduleDocument, where, order, limit=DUE_READ, without=ScheduleDocument.sealed
        )

    async def _try(self, work: _Work, schedule: ScheduleDocument, judge: Judge) -> None:
        async with self._places:
            try:
                await work(schedule, judge)
            except StoreUnavailable:
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, ApplicationError) else type(error).__name__
                log.warning("a schedule can't fire", schedule=schedule.id, reason=str(error))
                await self._put_off(schedule, judge.now, reason)

    async def _put_off(self, schedule: ScheduleDocument, now: Micros, reason: str) -> None:
        """Leave a schedule alone that can't fire: its next firing, or those that were decided, of which the first was
        tried. It says why."""
        where = {"state": ScheduleState.ACTIVE, "next_at": schedule.next_at}
        fields: dict[str, object] = {"error": reason}
        later = schedule.then
        if later:
            tries = later[0].tries + (later[0].at < now)
            until = now + min(schedule_firings.TAKEN_FOR * 2**tries, PUT_OFF_FOR)
            later = [msgspec.structs.replace(each, at=until) for each in later]
            later[0] = msgspec.structs.replace(later[0], tries=tries)
        else:
            fields["next_at"] = now + PUT_OFF_FOR
        change = Change(
            kind=ScheduleDocument, id=schedule.id, where=where, set=fields, put_off=tuple(later)
        )
        await self._store.change_many([change])

    async def _fire(self, schedule: ScheduleDocument, judge: Judge) -> None:
        """Decide what becomes of a firing that is due, and make its job."""
        firing = judge.firing(schedule)
        busy = schedule.overlap == "skip" and await self._still_runs(schedule)
        decision = schedule_firings.decided(schedule, firing, judge.now, busy=busy)
        decided = await self._store.change(decision)
        if decided is not None and decision.add_then:
            await self._make(decided)

    async def _still_runs(self, schedule: ScheduleDocument) -> bool:
        """Return whether the job of the firing before has not ended, or is still to be made."""
        if schedule.then:
            return True
        return await self._open_job(schedule.last_job_id) is not None

    async def _open_job(self, id: str | None) -> JobDocument | None:
        job = await self._store.get(JobDocument, id) if id else None
        return None if job is None or job.state in JOB_ENDED else job

    async def _take_up(self, schedule: ScheduleDocument, judge: Judge) -> None:
        """Make jobs of firings that were decided: they had to wait, or whoever was to make them died."""
        later = judge.now + schedule_firings.TAKEN_FOR
        taken = tuple(
            msgspec.structs.replace(each, at=later, tries=each.tries + 1)
            for each in schedule.then
            if each.at < judge.now
        )
        change = Change(
            kind=ScheduleDocument, id=schedule.id, put_off=taken, overdue_before=judge.now
        )
        image = await self._store.change(change)
        if image is None:
            return
        try:
            await self._make(image)
        except StoreUnavailable:
            await self._give_back(schedule, taken)
            raise

    async def _give_back(self, schedule: ScheduleDocument, taken: Sequence[Intent]) -> None:
        """Have it cost no try that the store was away."""
        uncounted = tuple(msgspec.structs.replace(each, tries=each.tries - 1) for each in taken)
        change = Change(kind=ScheduleDocument, id=schedule.id, put_off=uncounted)
        with contextlib.suppress(StoreUnavailable):
            await self._store.change_many([change])

    async def _leave_out(self, schedule: ScheduleDocument) -> None:
        """Leave out the firings of a paused schedule that have no job. Jobs are made in order; whoever made one may
        have died before it said so."""
        made = 0
        while made < len(schedule.then) and await self._is_made(schedule.then[made].args["job"]):
            made += 1
        change = schedule_firings.left_out(schedule, schedule.then, schedule.then[made:])
        await self._store.change_many([change])

    async def _is_made(self, job_id: str) -> bool:
        """Return whether there is such a job, or was."""
        if await self._store.get(JobDocument, job_id) is not None:
            return True
        return await self._store.get(TombstoneDocument, job_id) is not None

    async def _make(self, schedule: ScheduleDocument) -> None:
        """Make the jobs of firings that were decided, in order, until one has to wait."""
        if schedule.state != ScheduleState.ACTIVE:
            await self._leave_out(schedule)
            return
        for index, what in enumerate(schedule.then):
            done = Change(
                kind=ScheduleDocument, id=schedule.id, set={"error": None}, drop_then=(what.id,)
            )
            if is_given_up(what):
                done = schedule_firings.given_up(schedule, what)
                self._driver.counts["given_up"] += 1
                log.warning("a firing is given up", schedule=schedule.id, reason=schedule.error)
            elif await self._waits(schedule, what):
                await self._look_later(schedule, schedule.then[index:])
                return
            else:
                keys = self._driver.bounds.redaction_keys
                await ready_to_hide(hidden_values(schedule.definition, keys))
                now = self._store.now()
                await self._insert(schedule_firings.fired_job(schedule, what, now, keys))
            await self._store.change_many([done])

    async def _waits(self, schedule: ScheduleDocument, what: Intent) -> bool:
        """Return whether a firing has to wait for the job before it; a job that is to give way is cancelled."""
        if schedule.overlap not in ("queue", "cancel"):
            return False
        before = await self._open_job(what.args["after"])
        if before is None:
            return False
        if schedule.overlap == "queue":
            return True
        cancelled = await self._driver.carry_out(job_ends.cancelled_by_user(before))
        if cancelled is not None:
            self._driver.follow_soon([cancelled])
        return False

    async def _look_later(self, schedule: ScheduleDocument, waiting: Sequence[Intent]) -> None:
        """Have the first firing that waits looked at again soon. Those behind it were not tried."""
        now = self._store.now()
        delay = min(max(MICROS_PER_SECOND, (now - int(waiting[0].args["time"])) // 8), WAITS_FOR)
        again = tuple(msgspec.structs.replace(each, at=now + delay, tries=0) for each in waiting)
        change = Change(kind=ScheduleDocument, id=schedule.id, put_off=again)
        await self._store.change_many([change])

    async def _insert(self, made: JobDocument) -> None:
        job = job_lifecycle.with_hooks(made)
        if await self._driver.insert_job(job):
            await self._driver.tell(job)
            await self._driver.follow_for_a_while([job], FOLLOWED_FOR)


def _by_turns(due: Sequence[ScheduleDocument]) -> list[ScheduleDocument]:
    """Return them in the order of their turns. Coordinators that look at once are not to do the same first."""
    shuffled = random.sample(due, len(due))
    return in_turn(shuffled, lambda schedule: schedule.created_by.id)
