"""Computes when a schedule fires, and creates the job of a firing (job language spec, Schedule)."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

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

GRACE: Micros = 15 * MICROS_PER_SECOND
"""A firing that is later than this was missed."""


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
    return new_documents.new_job(
        schedule.definition,
        derived_id("firing", schedule.id, at),
        now,
        created_by=schedule.created_by,
        permissions=schedule.permissions,
        schedule=ScheduleRef(id=schedule.id, cron=schedule.cron),
    )
