"""Loads what the views of jobs and tasks need: counts, results, and the secrets to redact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from coordinator.api.context import Api
from shared.model.documents import JobDocument, LogPartDocument, TaskDocument
from shared.model.queries import In
from shared.model.states import GOOD, TaskKind
from shared.model.views import (
    JobSummaryView,
    JobView,
    TaskView,
    job_summary,
    job_view,
    redactor_of,
    task_view,
)
from shared.redaction import Redactor

MAX_EXECUTION: Final = 1000
"""Tasks in a job's own answer."""
MAX_EXECUTION_BYTES: Final = 16 * 1024 * 1024
_CHUNK: Final = 200
_MAX_ANCESTORS: Final = 20

_DONE: Final = In(tuple(GOOD))
"""States of children that count as completions."""


async def redactors(api: Api, jobs: Sequence[JobDocument]) -> list[Redactor]:
    """Return a redactor for each job: its secrets, and those of all jobs that it is a sub-job of."""
    above = await _ancestors(api, jobs)
    return [
        redactor_of(
            job.definition,
            *(each.definition for each in above[job.id]),
            key_patterns=api.key_patterns,
        )
        for job in jobs
    ]


async def redactor(api: Api, job: JobDocument) -> Redactor:
    """Return the redactor of one job."""
    return (await redactors(api, [job]))[0]


async def _ancestors(api: Api, jobs: Sequence[JobDocument]) -> dict[str, list[JobDocument]]:
    above: dict[str, list[JobDocument]] = {job.id: [] for job in jobs}
    at = {job.id: job for job in jobs if _made_by(job)}
    for _ in range(_MAX_ANCESTORS):
        if not at:
            break
        parents = await _parents(api, list(at.values()))
        at = {low: parents[job.id] for low, job in at.items() if job.id in parents}
        for low, parent in at.items():
            above[low].append(parent)
        at = {low: parent for low, parent in at.items() if _made_by(parent)}
    return above


def _made_by(job: JobDocument) -> str | None:
    return job.parent_id or job.detached_from


async def _parents(api: Api, jobs: Sequence[JobDocument]) -> dict[str, JobDocument]:
    task_ids = list({made_by for job in jobs if (made_by := _made_by(job))})
    tasks = {task.id: task for task in await api.store.get_many(TaskDocument, task_ids)}
    job_ids = list({task.job_id for task in tasks.values()})
    found = {job.id: job for job in await api.store.get_many(JobDocument, job_ids)}
    return {
        job.id: found[tasks[made_by].job_id]
        for job in jobs
        if (made_by := _made_by(job)) in tasks and tasks[made_by].job_id in found
    }


async def summaries(api: Api, jobs: Sequence[JobDocument]) -> list[JobSummaryView]:
    """Return jobs in short."""
    return [
        job_summary(job, redactor)
        for job, redactor in zip(jobs, await redactors(api, jobs), strict=True)
    ]


async def summary(api: Api, job: JobDocument) -> JobSummaryView:
    """Return one job in short."""
    return (await summaries(api, [job]))[0]


async def task_views(api: Api, tasks: Sequence[TaskDocument], redactor: Redactor) -> list[TaskView]:
    """Return tasks of one job, with their figures."""
    completions = await _completions(api, tasks)
    stored = await stored_parts(api, tasks)
    return [
        task_view(
            task,
            redactor,
            completions=completions.get(task.id, 0),
            stored_parts=stored.get(task.id, 0),
        )
        for task in tasks
    ]


async def _completions(api: Api, tasks: Sequence[TaskDocument]) -> dict[str, int]:
    parents = tuple(task.id for task in tasks if task.kind in (TaskKind.PARALLEL, TaskKind.EACH))
    if not parents:
        return {}
    where = {"parent_id": In(parents), "state": _DONE}
    return await api.store.group_count(TaskDocument, where, "parent_id")


async def stored_parts(api: Api, tasks: Sequence[TaskDocument]) -> dict[str, int]:
    """Return how many parts of its counted run's log are stored, for each task that says how many."""
    by_run: dict[int, list[str]] = defaultdict(list)
    for task in tasks:
        if task.log_parts:
            by_run[task.run].append(task.id)
    counts: dict[str, int] = {}
    for run, ids in by_run.items():
        where = {"task_id": In(tuple(ids)), "run": run}
        counts |= await api.store.group_count(LogPartDocument, where, "task_id")
    return counts


def in_order(tasks: Sequence[TaskDocument]) -> list[TaskDocument]:
    """Return tasks by position, then start; those that have not begun come last in their position."""
    return sorted(
        tasks,
        key=lambda task: (
            task.position,
            task.started_at is None,
            task.started_at or 0,
            task.created_at,
            task.index,
            task.id,
        ),
    )


async def execution(api: Api, job: JobDocument, redactor: Redactor) -> tuple[list[TaskView], bool]:
    """Return the newest tasks of a job in order, and whether there are more."""
    newest: list[TaskDocument] = []
    size = 0
    more = True
    while more and len(newest) < MAX_EXECUTION and size < MAX_EXECUTION_BYTES:
        chunk = await api.store.find(
            TaskDocument,
            {"job_id": job.id},
            order=("-position", "-created_at"),
            limit=_CHUNK + 1,
            skip=len(newest),
        )
        more = len(chunk) > _CHUNK
        newest += chunk[:_CHUNK]
        size += sum(map(_weight, chunk))
    return await task_views(api, in_order(newest), redactor), more


def _weight(task: TaskDocument) -> int:
    return len(msgspec.msgpack.encode(task.evaluated or task.definition)) + len(task.result or "")


async def whole_job(api: Api, job: JobDocument) -> JobView:
    """Return all of a job, as `GET /jobs/{id}` shows it."""
    its_redactor = await redactor(api, job)
    tasks, truncated = await execution(api, job, its_redactor)
    results = await api.store.vars(job.id, None, job.restarts, job.restarted_from)
    return job_view(job, its_redactor, execution=tasks, truncated=truncated, results=results)
