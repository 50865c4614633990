"""Computes when a schedule fires, and creates the job of a firing (job language spec, Schedule)."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim

from coordinator.engine import new_documents
from shared.ids import derived_id
from shared.model.cron import parse_cron
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    Micros,
    ScheduleDocument,
    ScheduleRef,
)

GRACE: Micros = 60 * MICROS_PER_SECOND
"""A firing that is no later than this is made whoever was awake; an older one is left for so long to coordinators that
were awake when it was due."""

LATE_FIRINGS = 1_000
"""Firings in a row that a schedule makes late."""


class Firing(msgspec.Struct, frozen=True):
    """What a schedule that is due does: it makes the job of the firing at `at` (None: none), and fires next at
    `next_at`. `late`: how many in a row it has made late."""

    at: Micros | None
    next_at: Micros | None
    late: int


class Judge(msgspec.Struct, frozen=True):
    """Decides at `now` what becomes of firings that are due, for a coordinator that has been awake since `awake`."""

    now: Micros
    awake: Micros

    @property
    def all_are_mine(self) -> bool:
        """Whether coordinators that were awake earlier have had their time."""
        return self.now - self.awake > GRACE

    def is_mine(self, schedule: ScheduleDocument) -> bool:
        """Return whether the firing that is due is for this coordinator to judge."""
        return self.all_are_mine or self._was_awake(schedule.next_at or 0)

    def firing(self, schedule: ScheduleDocument) -> Firing:
        """Return what a schedule that is due does."""
        due = schedule.next_at or 0
        at = self._made(schedule, due)
        next_at = next_firing(schedule, due if at == due else self.now)
        is_late = at is not None and self.now - due > GRACE
        return Firing(at, next_at, schedule.late + 1 if is_late else 0)

    def _made(self, schedule: ScheduleDocument, due: Micros) -> Micros | None:
        on_time = self.now - due <= GRACE
        if not on_time and schedule.late >= LATE_FIRINGS:
            return None
        if self._was_awake(due) or schedule.catchup == "all":
            return due
        if schedule.catchup == "last":
            return latest_firing(schedule, due - 1, self.now)
        return None

    def _was_awake(self, due: Micros) -> bool:
        return due >= self.awake or self.now - due <= GRACE


def next_firing(schedule: ScheduleDocument, after: Micros) -> Micros | None:
    """Return the first firing later than `after`; None where there is none any more.

    `@every` counts from when the schedule was made. Cron fields are read in the schedule's zone; in the hour that
    daylight saving skips or repeats a job fires once, as cron does."""
    cron = parse_cron(schedule.cron)
    if cron.every_seconds is not None:
        period = cron.every_seconds * MICROS_PER_SECOND
        passed = max(0, after - schedule.created_at) // period
        return schedule.created_at + (passed + 1) * period
    zone = ZoneInfo(cron.timezone or schedule.timezone or "UTC")
    moment = datetime.fromtimestamp(after // MICROS_PER_SECOND, UTC).astimezone(zone)
    for firing in CronSim(str(cron.fields), moment):
        at = int(firing.timestamp()) * MICROS_PER_SECOND
        if at > after:
            return at
    return None


def latest_firing(schedule: ScheduleDocument, since: Micros, until: Micros) -> Micros | None:
    """Return the last firing after `since`, up to `until`."""
    cron = parse_cron(schedule.cron)
    if cron.every_seconds is not None:
        period = cron.every_seconds * MICROS_PER_SECOND
        last = schedule.created_at + (until - schedule.created_at) // period * period
        return last if last > since else None
    zone = ZoneInfo(cron.timezone or schedule.timezone or "UTC")
    moment = datetime.fromtimestamp(until // MICROS_PER_SECOND + 1, UTC).astimezone(zone)
    for firing in CronSim(str(cron.fields), moment, reverse=True):
        at = int(firing.timestamp()) * MICROS_PER_SECOND
        if at <= until:
            return at if at > since else None
    return None


def fired_job(schedule: ScheduleDocument, at: Micros, now: Micros) -> JobDocument:
    """Return the job of the firing at `at`: whoever makes it, it is one."""
    return job_of(schedule, derived_id("firing", schedule.id, at), now)


def job_of(schedule: ScheduleDocument, id: str, now: Micros) -> JobDocument:
    """Return a job that a schedule makes."""
    return new_documents.new_job(
        schedule.definition,
        id,
        now,
        created_by=schedule.created_by,
        permissions=schedule.permissions,
        schedule=ScheduleRef(id=schedule.id, cron=schedule.cron),
    )
