"""Ends jobs, and marks ended ones for removal. What follows from either is an intent of the job."""

from __future__ import annotations

from typing import Unpack

from coordinator.engine import transitions
from coordinator.engine.evaluation import kept_error
from coordinator.engine.flow import Flow, change_job, get, now
from coordinator.engine.new_documents import DELETE, FINISH, intent
from coordinator.engine.transitions import JobFields, JobMove
from coordinator.engine.webhook_triggers import JOB_PROGRESS, JOB_STATE, progress_hook, state_hook
from shared.model.documents import Document, JobDocument
from shared.model.queries import Where
from shared.model.states import JOB_ENDED, JobState

UNDER_WAY = (JobState.SCHEDULED, JobState.RUNNING)
"""States of a job that has begun and has not ended: `JOB_ACTIVE` without PENDING."""


def goes_on(job: JobDocument | None, restarts: int) -> bool:
    """Return whether a job is there, has not ended, and was not restarted since `restarts`."""
    return job is not None and job.state not in JOB_ENDED and job.restarts == restarts


def is_over(job: JobDocument, restarts: int) -> bool:
    """Return whether a job has ended, or was restarted since `restarts`. An old image of it that says so is right."""
    return job.restarts > restarts or (job.restarts == restarts and job.state in JOB_ENDED)


def end_job(
    job: JobDocument,
    restarts: int,
    state: JobState,
    error: str | None,
    /,
    **more: Unpack[JobFields],
) -> Flow[list[Document]]:
    """End a job, short of its last task, that still goes on with this number of restarts; return it if this did."""
    move = JobMove((JobState.PENDING, *UNDER_WAY), state)
    return (yield from end_job_by(job, restarts, move, error, {}, **more))


def end_job_by(
    job: JobDocument,
    restarts: int,
    move: JobMove,
    error: str | None,
    where: Where,
    /,
    **more: Unpack[JobFields],
) -> Flow[list[Document]]:
    """End a job that matches `where` by `move`, with these fields; return it if this did."""
    at = yield from now()
    fields: JobFields = {
        **transitions.job_end(move.to, at, **more),
        "error": kept_error(job, error),
    }
    hooks = state_hook(job, JOB_STATE, move.to, at, restarts)
    if move.to == JobState.COMPLETED:
        hooks += progress_hook(job, JOB_PROGRESS, at, move.to)
    add = (intent(FINISH, at, restarts=restarts), *hooks)
    here = {"restarts": restarts, **where}
    image = yield from change_job(job.id, here, fields, move=move, add=add)
    return [image] if image else []


def cancelled_by_user(job: JobDocument) -> Flow[JobDocument | None]:
    """Store that a job is cancelled; None where it has ended already. What follows is an intent of it."""
    ended = yield from end_job(job, job.restarts, JobState.CANCELLED, None)
    if ended:
        image = ended[0]
        assert isinstance(image, JobDocument)
        return image
    present = yield from get(JobDocument, job.id)
    if present is None or present.state in JOB_ENDED or present.restarts == job.restarts:
        return None
    return (yield from cancelled_by_user(present))


def marked_for_removal(job_id: str) -> Flow[list[Document]]:
    """Mark a job that has ended as one to be removed: from now on nobody is shown it, and it can't be restarted.
    Return it if this did: that it goes, with all below it, is an intent of it."""
    at = yield from now()
    where = {"state": transitions.any_state(JOB_ENDED), "deleted_at": None}
    image = yield from change_job(job_id, where, {"deleted_at": at}, add=(intent(DELETE, at),))
    return [image] if image else []
