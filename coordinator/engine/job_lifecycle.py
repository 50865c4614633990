"""Begins, cancels, restarts and ends jobs."""

from __future__ import annotations

import msgspec

from coordinator.engine import new_documents, task_start
from coordinator.engine.composites import cancel_task, withdraw
from coordinator.engine.flow import (
    Flow,
    change_job,
    change_task,
    find,
    get,
    job_change,
    later,
    now,
    recall,
    send,
)
from coordinator.engine.new_documents import BEGIN, RESTART, intent
from coordinator.engine.states import JobFields, JobMove
from coordinator.engine.task_ends import BEGUN, RUNS, end_job, open_tasks, released, tell_parent
from coordinator.engine.webhooks import JOB_STATE, state_hook
from shared.model.documents import Document, Intent, JobDocument, Micros, TaskDocument
from shared.model.messages import Stop
from shared.model.queries import In, Where
from shared.model.states import JOB_ACTIVE, JOB_ENDED, JobState, TaskKind

RESTARTED = JobMove((JobState.FAILED, JobState.CANCELLED), JobState.RUNNING)

_BATCH = 500
"""Open tasks that are cancelled between two looks."""


def with_hooks(job: JobDocument) -> JobDocument:
    """Return a new job with the intents that its insertion must hold."""
    return msgspec.structs.replace(
        job, then=[*job.then, *state_hook(job, JOB_STATE, JobState.PENDING, job.created_at)]
    )


def begin_job(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a new job: insert its first task."""
    assert isinstance(job, JobDocument)
    if job.state != JobState.PENDING:
        yield from change_job(job.id, {}, {}, drop=(BEGIN,))
        return []
    return (yield from _place_first(job, 1, {}, BEGUN, what))


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
        if present is None or present.state in JOB_ENDED or present.restarts != job.restarts:
            return (yield from withdraw(job, [placed]))
    return (yield from released(placed))


# --- cancel and end -----------------------------------------------------------------------------------------------


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


def finish(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a job that ended: cancel what is open below it, and tell the task that waits for it."""
    assert isinstance(job, JobDocument)
    restarts = int(what.args.get("restarts", job.restarts))
    follow: list[Document] = []
    if job.state != JobState.COMPLETED or job.restarts > restarts:
        follow += yield from cancel_open(job, restarts)
    if job.state in JOB_ENDED and job.restarts == restarts:
        follow += yield from tell_parent(job)
    yield from later(job_change(job.id, {}, {}, drop=(what.id,)))
    return follow


def cancel_open(job: JobDocument, restarts: int) -> Flow[list[Document]]:
    """Cancel every active task of a job of `restarts` or lower, parents first, and the sub-jobs attached to them;
    look again until none is left: a parent may have grown between the look and its cancel."""
    follow: list[Document] = []
    while True:
        cancelled: list[TaskDocument] = []
        for task in (yield from open_tasks(job.id, restarts, _BATCH)):
            image = yield from cancel_task(job, task)
            cancelled += [image] if image is not None else []
        for image in cancelled:
            if image.kind == TaskKind.CONTAINER and image.nonce:
                yield from send(image.node_id, Stop(nonces=[image.nonce], reason="cancelled"))
        follow += [image for image in cancelled if image.then]
        if not cancelled:
            return follow


def abandon(task: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a cancelled task that may have a sub-job attached: cancel that too."""
    follow: list[Document] = []
    active = In(tuple(JOB_ACTIVE))
    for child in (yield from find(JobDocument, {"parent_id": task.id, "state": active})):
        image = yield from cancelled_by_user(child)
        if image is not None:
            follow.append(image)
    yield from change_task(task.id, {}, {}, drop=(what.id,))
    return follow


# --- restart ------------------------------------------------------------------------------------------------------


def restarted_by_user(job: JobDocument) -> Flow[JobDocument | None]:
    """Store that a job that failed or was cancelled goes on; None where it is neither."""
    at = yield from now()
    fields: JobFields = {
        "restarts": job.restarts + 1,
        "error": None,
        "failed_at": None,
        "completed_at": None,
        "ended_at": None,
    }
    where = {"restarts": job.restarts}
    add = (
        intent(RESTART, at, restarts=job.restarts + 1),
        *state_hook(job, JOB_STATE, JobState.RUNNING, at),
    )
    return (yield from change_job(job.id, where, fields, move=RESTARTED, add=add, drop=(BEGIN,)))


def restarted(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a restart: cancel what is left of before, then run the task at its position anew."""
    assert isinstance(job, JobDocument)
    follow = yield from cancel_open(job, job.restarts - 1)
    if job.state != JobState.RUNNING or job.restarts != int(what.args["restarts"]):
        yield from change_job(job.id, {}, {}, drop=(what.id,))
        return follow
    position = max(1, min(job.position, len(job.definition.tasks)))
    follow += yield from _place_first(job, position, {"state": JobState.RUNNING}, None, what)
    return follow


def began(job_id: str, at: Micros) -> Flow[JobDocument | None]:
    """Store that a job runs: its first task was granted, or its first composite begun."""
    job = yield from recall(job_id)
    if job is None:
        return None
    add = state_hook(job, JOB_STATE, JobState.RUNNING, at)
    image = yield from change_job(job_id, {}, {"started_at": at}, move=RUNS, add=add)
    return image or (yield from get(JobDocument, job_id))
