"""Begins and restarts jobs, and follows what their ends leave to do."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.engine import new_documents, orphans, task_start
from coordinator.engine.flow import (
    Flow,
    change_job,
    delete_document,
    get,
    job_change,
    later,
    now,
    recall,
)
from coordinator.engine.job_ends import goes_on
from coordinator.engine.new_documents import BEGIN, DELETE, RESTART, intent
from coordinator.engine.task_ends import BEGUN, RUNS, released, tell_parent
from coordinator.engine.transitions import JobFields, JobMove
from coordinator.engine.webhook_triggers import JOB_STATE, state_hook
from coordinator.engine.withdrawal import withdraw, withdraw_below
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    Intent,
    JobDocument,
    Micros,
    TombstoneDocument,
)
from shared.model.queries import Where
from shared.model.states import JOB_ENDED, JobState

RESTARTED = JobMove((JobState.FAILED, JobState.CANCELLED), JobState.RUNNING)


def with_hooks(job: JobDocument) -> JobDocument:
    """Return a new job with the intents that its insertion must hold."""
    return msgspec.structs.replace(
        job, then=[*job.then, *state_hook(job, JOB_STATE, JobState.PENDING, job.created_at)]
    )


READY_WITHIN: Micros = 600 * MICROS_PER_SECOND
"""How long after its insertion a job is removed that did not get what it is to begin with."""


def unready(job: JobDocument) -> JobDocument:
    """Return a new job as it is stored while what it begins with is not there yet: as one that is to be removed."""
    removal = intent(DELETE, job.created_at + READY_WITHIN)
    return msgspec.structs.replace(job, deleted_at=job.created_at, then=[removal])


def made_ready(job: JobDocument, then: Sequence[Intent]) -> Flow[JobDocument | None]:
    """Have an unready job be one that goes on with the intents `then`; None where it was removed."""
    where, drop = {"deleted_at": job.deleted_at}, (DELETE,)
    return (yield from change_job(job.id, where, {"deleted_at": None}, add=tuple(then), drop=drop))


def begin_job(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a new job: insert its first task, or the one after those that are kept of another job."""
    assert isinstance(job, JobDocument)
    if job.state != JobState.PENDING:
        return (yield from _given_up(job, what))
    if (yield from _made_late(job)):
        yield from delete_document(JobDocument, {"id": job.id})
        return []
    if job.parent_id is not None:
        lost = yield from orphans.lost_subjob(job)
        if lost is not None:
            return lost
    return (yield from _place_first(job, job.position + 1, {}, BEGUN, what))


def _made_late(job: JobDocument) -> Flow[bool]:
    """Return whether this very job was there before and was deleted: whoever made it again looked before it was."""
    if not new_documents.may_come_again(job):
        return False
    return (yield from get(TombstoneDocument, job.id)) is not None


def _given_up(job: JobDocument, what: Intent) -> Flow[list[Document]]:
    """Drop an intent to begin or restart a job that has ended or was restarted, once what it may have made is gone."""
    over, follow = yield from withdraw_below(job, what, _restarts_over(job))
    if over:
        yield from change_job(job.id, {}, {}, drop=(what.id,))
    return follow


def _restarts_over(job: JobDocument) -> int:
    """Return up to which number of restarts a job's tasks are not to go on."""
    return job.restarts if job.state in JOB_ENDED else job.restarts - 1


def _place_first(
    job: JobDocument,
    position: int,
    where: Where,
    move: JobMove | None,
    what: Intent,
) -> Flow[list[Document]]:
    """Insert the task at `position`; look again at the job by moving it there; go on with the task."""
    at = yield from now()
    placed = yield from task_start.place(
        job, new_documents.top_level_task(job, position, job.restarts, at), at
    )
    here = {**where, "restarts": job.restarts, "position": job.position}
    image = yield from change_job(job.id, here, {"position": position}, move=move, drop=(what.id,))
    if image is None:
        present = yield from get(JobDocument, job.id)
        if not goes_on(present, job.restarts):
            return (yield from withdraw([placed], gone=present is None))
    return (yield from released(placed))


# --- cancel and end -----------------------------------------------------------------------------------------------


def finish(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a job that ended: cancel what is open below it, and tell the task that waits for it."""
    assert isinstance(job, JobDocument)
    restarts = int(what.args.get("restarts", job.restarts))
    follow: list[Document] = []
    if job.state != JobState.COMPLETED or job.restarts > restarts:
        over, follow = yield from withdraw_below(job, what, restarts)
        if not over:
            return follow
    if job.state in JOB_ENDED and job.restarts == restarts:
        follow += yield from tell_parent(job)
    yield from later(job_change(job.id, {}, {}, drop=(what.id,)))
    return follow


# --- restart ------------------------------------------------------------------------------------------------------


def restarted_by_user(job: JobDocument) -> Flow[JobDocument | None]:
    """Store that a job that failed or was cancelled goes on; None where it is neither."""
    at = yield from now()
    fields: JobFields = {
        "restarts": job.restarts + 1,
        "restarted_from": _restarts_at(job),
        "error": None,
        "failed_task": None,
        "failed_at": None,
        "completed_at": None,
        "ended_at": None,
    }
    where = {"restarts": job.restarts, "position": job.position, "deleted_at": None}
    add = (
        intent(RESTART, at, restarts=job.restarts + 1),
        *state_hook(job, JOB_STATE, JobState.RUNNING, at, job.restarts + 1),
    )
    image = yield from change_job(job.id, where, fields, move=RESTARTED, add=add, drop=(BEGIN,))
    if image is not None:
        return image
    present = yield from get(JobDocument, job.id)
    moved = present is not None and present.position != job.position
    if present is None or not moved or present.restarts != job.restarts:
        return None
    return (yield from restarted_by_user(present))


def _restarts_at(job: JobDocument) -> int:
    """Return the position that a restart begins at: the first, if the job never had one."""
    return max(1, min(job.position, len(job.definition.tasks)))


def restarted(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a restart: cancel what is left of before, then run the task at its position anew."""
    assert isinstance(job, JobDocument)
    if job.state != JobState.RUNNING or job.restarts != int(what.args["restarts"]):
        return (yield from _given_up(job, what))
    over, follow = yield from withdraw_below(job, what, job.restarts - 1)
    if over:
        here: Where = {"state": JobState.RUNNING}
        follow += yield from _place_first(job, _restarts_at(job), here, None, what)
    return follow


def began(job_id: str, at: Micros) -> Flow[JobDocument | None]:
    """Store that a job runs: its first task was granted, or its first composite begun."""
    job = yield from recall(job_id)
    if job is None:
        return None
    add = state_hook(job, JOB_STATE, JobState.RUNNING, at)
    image = yield from change_job(job_id, {}, {"started_at": at}, move=RUNS, add=add)
    return image or (yield from get(JobDocument, job_id))
