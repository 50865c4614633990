"""The progress of tasks and jobs: reported by runs, or computed for composites and sub-jobs."""

from __future__ import annotations

from typing import Any

from coordinator.engine import new_documents
from coordinator.engine.flow import Flow, change_job, change_task, count, find, get, now, recall
from coordinator.engine.transitions import any_state
from coordinator.engine.webhook_triggers import JOB_PROGRESS, TASK_PROGRESS, progress_hook
from shared.model.documents import Document, JobDocument, TaskDocument
from shared.model.messages import Progressed
from shared.model.queries import Above
from shared.model.states import GOOD, JobState, TaskKind, TaskState

_DONE = any_state(GOOD)

RUNNING_SEEN = 1_000
"""So many running children's own progress is looked at, at most."""


def on_progress(message: Progressed) -> Flow[list[Document]]:
    """Keep a run's progress, and its job's share of it."""
    percent = min(100.0, max(0.0, round(message.progress, 2)))
    job = yield from recall(message.job_id)
    where: dict[str, Any] = {"state": TaskState.RUNNING, "run": message.run}
    if message.nonce:
        where["nonce"] = message.nonce
    return (yield from _keep(job, message.task_id, percent, where))


def grown(task_id: str) -> Flow[list[Document]]:
    """Look again at a composite below which something moved; keep how far it is. Repeated, it writes nothing."""
    task = yield from get(TaskDocument, task_id)
    if task is None or task.state != TaskState.RUNNING or task.kind == TaskKind.CONTAINER:
        return []
    percent = yield from (_of_subjob(task) if task.kind == TaskKind.SUBJOB else _of_children(task))
    if percent == task.progress:
        return []
    job = yield from recall(task.job_id)
    return (yield from _keep(job, task.id, percent, {"state": TaskState.RUNNING}))


def _of_subjob(task: TaskDocument) -> Flow[float]:
    child = (yield from get(JobDocument, task.subjob_id)) if task.subjob_id else None
    return child.progress if child is not None else task.progress


def _of_children(task: TaskDocument) -> Flow[float]:
    """Return the children that are done over all, plus the share of those that run, in percent."""
    if not task.size:
        return task.progress
    done = yield from count(TaskDocument, {"parent_id": task.id, "state": _DONE})
    running = yield from find(
        TaskDocument,
        {"parent_id": task.id, "state": TaskState.RUNNING, "progress": Above(0)},
        limit=RUNNING_SEEN,
        without=TaskDocument.heavy,
    )
    share = sum(child.progress for child in running)
    return new_documents.progress_of(done, task.size, share)


def _keep(
    job: JobDocument | None, task_id: str, percent: float, where: dict[str, Any]
) -> Flow[list[Document]]:
    at = yield from now()
    add = progress_hook(job, TASK_PROGRESS, at)
    task = yield from change_task(task_id, where, {"progress": percent}, add=add)
    if task is None or job is None:
        return []
    follow: list[Document] = [task] if task.then else []
    if task.parent_id is None:
        share = new_documents.progress_of(task.position - 1, job.task_count, percent)
        of_job = {"state": JobState.RUNNING, "position": task.position, "restarts": task.restarts}
        add = progress_hook(job, JOB_PROGRESS, at)
        image = yield from change_job(job.id, of_job, {"progress": share}, add=add)
        follow += [image] if image and image.then else []
    return follow
