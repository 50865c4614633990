"""Creates the jobs of schedules that are due: one for each firing, however many coordinators run."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from coordinator.effects import FlowDriver
from coordinator.engine import job_lifecycle, schedule_firings
from coordinator.store.port import Below, Change
from shared.errors import StoreUnavailable
from shared.model.documents import MICROS_PER_SECOND, Micros, ScheduleDocument
from shared.model.states import ScheduleState
from shared.supervision import Loop, came_round

log = structlog.get_logger(__name__)

_EVERY = 0.5
"""Seconds between looks."""

DUE_AT_ONCE: Final = 200
"""Schedules that are read at once; another such batch follows until none is due."""

FIRED_AT_ONCE: Final = 16
"""Firings made side by side."""

FOLLOWED_FOR: Final = 0.2
"""Seconds that a firing's place is kept while its job begins, which then goes on by itself."""

PUT_OFF_FOR: Final[Micros] = 300 * MICROS_PER_SECOND
"""How long a schedule that can't fire is left alone: it is to keep no other from firing."""

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
    """Makes the jobs of schedules that are due. The job is stored first, under an id that follows from the firing;
    then the schedule moves on: whatever dies between, the firing makes one job.

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
        now = self._awake.look()
        judge = schedule_firings.Judge(now, self._awake.since)
        while True:
            due = await self._due(judge)
            mine = [schedule for schedule in due if judge.is_mine(schedule)]
            random.shuffle(mine)  # coordinators that look at once are not to do the same first
            await asyncio.gather(*(self._try(schedule, judge) for schedule in mine))
            came_round()
            if not mine:
                return

    async def _due(self, judge: schedule_firings.Judge) -> Sequence[ScheduleDocument]:
        """Return schedules that are due: those first that are this coordinator's to fire."""
        where = {"state": ScheduleState.ACTIVE, "next_at": Below(judge.now + 1)}
        order = ("next_at",) if judge.all_are_mine else ("-next_at",)
        return await self._store.find(ScheduleDocument, where, order, limit=DUE_AT_ONCE)

    async def _try(self, schedule: ScheduleDocument, judge: schedule_firings.Judge) -> None:
        async with self._places:
            try:
                await self._fire(schedule, judge)
            except StoreUnavailable:
                raise
            except Exception as error:
                log.warning("a schedule can't fire", schedule=schedule.id, reason=str(error))
                await self._move_on(schedule, {"next_at": judge.now + PUT_OFF_FOR})

    async def _fire(self, schedule: ScheduleDocument, judge: schedule_firings.Judge) -> None:
        firing = judge.firing(schedule)
        if firing.at is not None:
            made = schedule_firings.fired_job(schedule, firing.at, judge.now)
            job = job_lifecycle.with_hooks(made)
            if await self._store.insert(job):
                await self._driver.tell(job)
                await self._driver.follow_for_a_while([job], FOLLOWED_FOR)
        await self._move_on(
            schedule,
            {
                "next_at": firing.next_at,
                "fired_at": firing.at or schedule.fired_at,
                "late": firing.late,
            },
        )

    async def _move_on(self, schedule: ScheduleDocument, fields: dict[str, object]) -> None:
        where = {"state": ScheduleState.ACTIVE, "next_at": schedule.next_at}
        change = Change(kind=ScheduleDocument, id=schedule.id, where=where, set=fields)
        await self._store.change_many([change])
