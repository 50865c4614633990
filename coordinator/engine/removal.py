"""Removes jobs that are marked for it: what is attached below ends and goes first, the job itself last."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.engine import slots
from coordinator.engine.flow import Flow, delete_document, find
from coordinator.engine.withdrawal import BATCH, again, withdraw, withdraw_below
from shared.model.documents import (
    DeliveryDocument,
    Document,
    Intent,
    ItemsDocument,
    JobDocument,
    LogPartDocument,
    TaskDocument,
)
from shared.model.queries import In
from shared.model.states import TaskKind

JOBS_AT_ONCE = 100
"""Sub-jobs read at once: their definitions come with them."""

LOG_BATCH = 5_000
"""Log parts, and the like, that one step removes."""


def remove_job(job: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a job marked for removal, by one step: what is open ends; then tasks go, after the sub-jobs
    attached to them are marked in their turn; then what else belongs to the job; then the job."""
    assert isinstance(job, JobDocument)
    over, follow = yield from withdraw_below(job, what, job.restarts)
    if not over:
        return follow
    tasks = yield from find(
        TaskDocument,
        {"job_id": job.id},
        order=("created_at", "id"),
        limit=BATCH,
        without=slots.HEAVY,
    )
    follow += yield from _remove_subjobs(tasks)
    yield from delete_document(TaskDocument, {"id": In(tuple(task.id for task in tasks))})
    if len(tasks) == BATCH:
        return [*follow, *(yield from again(job, what))]
    for kind in (ItemsDocument, LogPartDocument, DeliveryDocument):
        if (yield from delete_document(kind, {"job_id": job.id}, LOG_BATCH)) == LOG_BATCH:
            return [*follow, *(yield from again(job, what))]
    yield from delete_document(JobDocument, {"id": job.id})
    return follow


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
