"""Removes jobs that are marked for it: what is attached below ends and goes first, the job itself last."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.engine import new_documents
from coordinator.engine.flow import Flow, delete_document, find, insert, now
from coordinator.engine.new_documents import HOOK
from coordinator.engine.pulse import era_began
from coordinator.engine.withdrawal import BATCH, again, withdraw, withdraw_below
from shared.model.documents import (
    MICROS_PER_SECOND,
    DeliveryDocument,
    Document,
    Intent,
    ItemsDocument,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
    TombstoneDocument,
)
from shared.model.queries import In
from shared.model.states import DeliveryState, TaskKind

JOBS_AT_ONCE = 100
"""Sub-jobs read at once: their definitions come with them."""

TOLD_WITHIN: Micros = 900 * MICROS_PER_SECOND
"""How long a removal waits for the job's webhooks to be delivered; anew where things stood still, or a clock jumped."""

LOOKED_AGAIN: Micros = 5 * MICROS_PER_SECOND
"""How long after it had to wait a removal is due again."""

LOG_BATCH = 5_000
"""Log parts, and the like, that one step removes."""


def remove_job(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a job marked for removal, by one step: what is open ends; then its webhooks are delivered or
    given up; then tasks go, after the sub-jobs attached to them are marked in their turn; then what else belongs to the
    job; then the job, of which only its id is left."""
    assert isinstance(job, JobDocument)
    over, follow = yield from withdraw_below(job, what, job.restarts)
    if not over:
        return follow
    since = max(job.deleted_at or 0, (yield from era_began()))
    waits = (yield from now()) < since + TOLD_WITHIN
    if waits and (yield from _is_telling(job)):
        yield from again(job, what, after=LOOKED_AGAIN)
        return follow
    tasks = yield from find(
        TaskDocument,
        {"job_id": job.id},
        order=("created_at", "id"),
        limit=BATCH,
        without=TaskDocument.heavy,
    )
    if waits and any(map(_has_hook, tasks)):
        yield from again(job, what, after=LOOKED_AGAIN)
        return follow
    follow += yield from _remove_subjobs(tasks)
    yield from delete_document(TaskDocument, {"id": In(tuple(task.id for task in tasks))})
    if len(tasks) == BATCH:
        return [*follow, *(yield from again(job, what))]
    for kind in (ItemsDocument, LogPartDocument, DeliveryDocument):
        if (yield from delete_document(kind, {"job_id": job.id}, LOG_BATCH)) == LOG_BATCH:
            return [*follow, *(yield from again(job, what))]
    yield from bury(job)
    yield from delete_document(JobDocument, {"id": job.id})
    return follow


def bury(job: JobDocument) -> Flow[None]:
    """Leave the id of a job that is about to go, where whoever is to make it may still be late."""
    if new_documents.may_come_again(job):
        yield from insert(TombstoneDocument(id=job.id, buried_at=(yield from now())))


def _is_telling(job: JobDocument) -> Flow[bool]:
    """Return whether a webhook of a job is still to be delivered."""
    if _has_hook(job):
        return True
    pending = {"job_id": job.id, "state": DeliveryState.PENDING}
    return bool(
        (yield from find(DeliveryDocument, pending, limit=1, without=DeliveryDocument.heavy))
    )


def _has_hook(document: JobDocument | TaskDocument) -> bool:
    return any(what.do == HOOK for what in document.then)


def _remove_subjobs(tasks: Sequence[TaskDocument]) -> Flow[list[Document]]:
    """Cancel the sub-jobs attached to these tasks, and mark them for removal, until none is left that is not marked."""
    parents = tuple(task.id for task in tasks if task.kind == TaskKind.SUBJOB)
    if not parents:
        return []
    follow: list[Document] = []
    where = {"parent_id": In(parents), "deleted_at": None}
    while found := (yield from find(JobDocument, where, limit=JOBS_AT_ONCE)):
        follow += yield from withdraw(found, gone=True)
    return follow
