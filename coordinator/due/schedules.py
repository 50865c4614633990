"""Creates the jobs of schedules that are due: one for each firing, however many coordinators run."""

from __future__ import annotations

import structlog

from coordinator.effects import FlowDriver
from coordinator.engine import job_lifecycle, schedule_firings
from coordinator.store.port import Below, Change
from shared.errors import StoreUnavailable
from shared.model.documents import Micros, ScheduleDocument
from shared.model.states import ScheduleState
from shared.supervision import Loop

log = structlog.get_logger(__name__)

_EVERY = 0.5
"""Seconds between looks."""

_LIMIT = 100


class ScheduleTimer:
    """Makes the jobs of schedules that are due. The job is stored first, under an id that follows from the firing;
    then the schedule moves on: whatever dies between, the firing makes one job."""

    def __init__(self, driver: FlowDriver) -> None:
        self._driver = driver
        self._store = driver.store
        self._loop = Loop("schedules", self.fire_due, every=_EVERY)

    def start(self) -> None:
        """Start making the jobs of schedules that are due, in the background."""
        self._loop.start()

    async def close(self) -> None:
        """Make no more jobs, cutting a round short."""
        await self._loop.close()

    async def fire_due(self) -> None:
        """Make the jobs that are due by now, and move their schedules on."""
        now = self._store.now()
        where = {"state": ScheduleState.ACTIVE, "next_at": Below(now + 1)}
        for schedule in await self._store.find(ScheduleDocument, where, ("next_at",), limit=_LIMIT):
            try:
                await self._fire(schedule, now)
            except StoreUnavailable:
                raise
            except Exception as error:
                log.warning("a schedule can't fire", schedule=schedule.id, reason=str(error))

    async def _fire(self, schedule: ScheduleDocument, now: Micros) -> None:
        due = schedule.next_at
        assert due is not None
        at: Micros | None = due
        if now - due > schedule_firings.GRACE:
            missed = schedule.catchup == "last"
            at = schedule_firings.latest_firing(schedule, due - 1, now) if missed else None
            due = now if at is None else at
        if at is not None:
            job = job_lifecycle.with_hooks(schedule_firings.fired_job(schedule, at, now))
            if await self._store.insert(job):
                await self._driver.tell(job)
                self._driver.follow_soon([job])
        await self._store.change(
            Change(
                kind=ScheduleDocument,
                id=schedule.id,
                where={"state": ScheduleState.ACTIVE, "next_at": schedule.next_at},
                set={
                    "next_at": schedule_firings.next_firing(schedule, due),
                    "fired_at": at or schedule.fired_at,
                },
            )
        )
