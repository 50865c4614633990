"""Computes when a schedule fires, and creates the job of a firing (job language spec, Schedule)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim

from coordinator.engine import new_documents
from coordinator.engine.given_up import DIED, TRIES
from shared.ids import derived_id
from shared.model.cron import parse_cron
from shared.model.documents import (
    MICROS_PER_SECOND,
    Intent,
    JobDocument,
    Micros,
    ScheduleDocument,
    ScheduleRef,
)
from shared.model.queries import Change
from shared.model.states import ScheduleState
from shared.model.views import rfc3339

GRACE: Micros = 60 * MICROS_PER_SECOND
"""A firing that is no later than this is made whoever was awake; an older one is left for so long to coordinators that
were awake when it was due."""

LATE_FIRINGS = 1_000
"""Firings in a row that a schedule makes late, and those that wait for the job before: more are left out."""

FIRE = "fire"
"""The intent of a schedule whose firing was decided, and whose job is to be made."""

TAKEN_FOR: Micros = 5 * MICROS_PER_SECOND
"""So long others leave a firing to whoever took it."""


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

    `@every` counts from when the schedule was made. Cron fields are read in the schedule's zone. In the hour that
    daylight saving skips or repeats a job fires once, as cron does; if the minute or the hour field begins with `*`, it
    fires in both of the repeated hours, and not in the skipped one."""
    if schedule.at is not None:
        return schedule.at if schedule.at > after else None
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
    if schedule.at is not None:
        return schedule.at if since < schedule.at <= until else None
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


def next_firings(schedule: ScheduleDocument, count: int) -> list[Micros]:
    """Return when a schedule fires next, the earliest first: none while it is paused."""
    found: list[Micros] = []
    at = schedule.next_at
    while at is not None and len(found) < count:
        found.append(at)
        at = next_firing(schedule, at)
    return found


def decided(
    schedule: ScheduleDocument, firing: Firing, now: Micros, *, busy: bool
) -> Change[ScheduleDocument]:
    """Return the write that makes a firing, and decides what becomes of it where the job before still runs (`busy`).

    That its job is to be made is an intent of it; whoever makes that write makes the job, others only later."""
    fields: dict[str, object] = {"next_at": firing.next_at, "late": firing.late}
    add: tuple[Intent, ...] = ()
    full = len(schedule.then) >= LATE_FIRINGS
    if firing.at is not None and not full and not (busy and schedule.overlap == "skip"):
        job_id = derived_id("firing", schedule.id, firing.at)
        fields |= {"fired_at": firing.at, "last_job_id": job_id}
        args = {
            "job": job_id,
            "time": firing.at,
            "previous": schedule.fired_at or 0,
            "after": schedule.last_job_id or "",
        }
        add = (Intent(f"{FIRE} {firing.at}", FIRE, now + TAKEN_FOR, args),)
    where = {
        "state": ScheduleState.ACTIVE,
        "next_at": schedule.next_at,
        "last_job_id": schedule.last_job_id,
    }
    return Change(kind=ScheduleDocument, id=schedule.id, where=where, set=fields, add_then=add)


def left_out(
    schedule: ScheduleDocument, waiting: Sequence[Intent], not_made: Sequence[Intent]
) -> Change[ScheduleDocument]:
    """Return the write that leaves out firings that wait: the last of them, `not_made`, have no job yet. The schedule's
    last firing is again the one before those."""
    fields: dict[str, object] = {}
    last = [(what.args["job"], what.args["time"]) for what in not_made[-1:]]
    if last == [(schedule.last_job_id, schedule.fired_at)]:  # none came later
        first = _first_in_a_row(not_made)
        fields = {
            "fired_at": first.args["previous"] or None,
            "last_job_id": first.args["after"] or None,
        }
    return Change(
        kind=ScheduleDocument,
        id=schedule.id,
        where={"state": schedule.state, "last_job_id": schedule.last_job_id},
        set=fields,
        drop_then=tuple(what.id for what in waiting),
    )


def given_up(schedule: ScheduleDocument, what: Intent) -> Change[ScheduleDocument]:
    """Return the write that gives up a firing whose job could not be made at any try: the schedule says why."""
    at = rfc3339(int(what.args["time"]))
    said = f"no job was made of the firing at {at}, tried {TRIES} times: {schedule.error or DIED}"
    change = left_out(schedule, [what], [what])
    return msgspec.structs.replace(change, set={**change.set, "error": said})


def _first_in_a_row(waiting: Sequence[Intent]) -> Intent:
    """Return the first of the firings that wait, after the last job made by hand among them."""
    first = waiting[-1]
    for what in reversed(waiting[:-1]):
        if what.args["job"] != first.args["after"]:
            break
        first = what
    return first


def fired_job(
    schedule: ScheduleDocument, what: Intent, now: Micros, keys: Sequence[str]
) -> JobDocument:
    """Return the job of a firing that was decided: whoever makes it, it is one."""
    ref = ScheduleRef(
        id=schedule.id,
        cron=schedule.cron,
        time=int(what.args["time"]),
        previous=int(what.args["previous"]),
    )
    return _job_of(schedule, str(what.args["job"]), now, ref, keys)


def job_made_by_hand(
    schedule: ScheduleDocument, id: str, now: Micros, keys: Sequence[str]
) -> JobDocument:
    """Return a job that a schedule makes besides its firings."""
    ref = ScheduleRef(schedule.id, schedule.cron, time=now, previous=schedule.fired_at or 0)
    return _job_of(schedule, id, now, ref, keys)


def _job_of(
    schedule: ScheduleDocument, id: str, now: Micros, ref: ScheduleRef, keys: Sequence[str]
) -> JobDocument:
    return new_documents.new_job(
        schedule.definition,
        id,
        now,
        keys=keys,
        created_by=schedule.created_by,
        permissions=schedule.permissions,
        schedule=ref,
    )
