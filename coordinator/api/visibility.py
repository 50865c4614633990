"""Finds the job, task or schedule of a request. What the caller is not allowed to see does not exist."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

from aiohttp import web

from coordinator.api.audit import done_to
from coordinator.api.context import api_of, caller
from coordinator.api.http import path_id
from coordinator.store.port import Store, Viewer
from shared.errors import Conflict, NotFound
from shared.model import language
from shared.model.documents import (
    Document,
    JobDocument,
    ScheduleDocument,
    TaskDocument,
)
from shared.model.queries import Above

_D = TypeVar("_D", bound=Document)


def may_see(permissions: Sequence[language.Permission], viewer: Viewer | None) -> bool:
    """Tell whether something with these permissions may be seen with these eyes."""
    if viewer is None or not permissions:
        return True
    return any(
        each.user == viewer.username if each.user else each.role in viewer.roles
        for each in permissions
    )


async def visible_job(request: web.Request, id: str) -> JobDocument:
    """Return a job; `NotFound` where it is not there or may not be seen."""
    store = api_of(request).store
    job = await store.get(JobDocument, id)
    if job is None:
        found: list[str] = []
        async for candidate in _beginning(store, JobDocument, id):
            found += [candidate.id] if _seen(candidate) else []
            if len(found) > 1:
                raise _ambiguous("job", id)
        job = await store.get(JobDocument, found[0]) if found else None
    if job is None or not _seen(job):
        raise NotFound("job not found")
    done_to(request, job.id)
    return job


async def job_in_path(request: web.Request) -> JobDocument:
    """Return the job that the path names."""
    return await visible_job(request, path_id(request))


async def task_in_path(request: web.Request) -> tuple[TaskDocument, JobDocument]:
    """Return the task that the path names, and its job."""
    return await _visible_task(request, path_id(request))


async def whole_task_id(request: web.Request, id: str) -> str:
    """Return the id of a task that may be shortened; `NotFound` where a shortened one stands for none."""
    return (await _visible_task(request, id))[0].id if _SHORTENED.fullmatch(id) else id


async def _visible_task(request: web.Request, id: str) -> tuple[TaskDocument, JobDocument]:
    store = api_of(request).store
    task = await store.get(TaskDocument, id)
    if task is None:
        task = await _shortened_task(store, id)
    job = await store.get(JobDocument, task.job_id) if task is not None else None
    if task is None or job is None or not _seen(job):
        raise NotFound("task not found")
    return task, job


async def _shortened_task(store: Store, id: str) -> TaskDocument | None:
    found: list[str] = []
    async for candidate in _beginning(store, TaskDocument, id):
        where = {"id": candidate.job_id}
        jobs = await store.find(JobDocument, where, without=JobDocument.heavy)
        found += [candidate.id] if any(map(_seen, jobs)) else []
        if len(found) > 1:
            raise _ambiguous("task", id)
    return await store.get(TaskDocument, found[0]) if found else None


_SHORTENED: Final = re.compile("[0-9a-f]{6,31}")
_LOOKED_AT: Final = 100
"""Documents that are read at a time to find out what a shortened id stands for."""


async def _beginning(store: Store, kind: type[_D], id: str) -> AsyncIterator[_D]:
    """Yield what `id` shortened may stand for, read without what may be large."""
    last = id
    while _SHORTENED.fullmatch(id):
        found = await store.find(
            kind, {"id": Above(last)}, ("id",), limit=_LOOKED_AT, without=kind.heavy
        )
        for each in found:
            if not each.id.startswith(id):
                return
            yield each
        if len(found) < _LOOKED_AT:
            return
        last = found[-1].id


def _seen(job: JobDocument) -> bool:
    return job.deleted_at is None and may_see(job.permissions, caller().viewer)


def _ambiguous(noun: str, id: str) -> Conflict:
    return Conflict(f"more than one {noun} has an id that begins with {id}: give more of it")


async def schedule_in_path(request: web.Request) -> ScheduleDocument:
    """Return the scheduled job that the path names."""
    schedule = await api_of(request).store.get(ScheduleDocument, path_id(request))
    if schedule is None or not may_see(schedule.permissions, caller().viewer):
        raise NotFound("scheduled job not found")
    return schedule


MOST_MEANT: Final = 1_000
"""Scheduled jobs of one name that are looked at: whoever asks wants one."""


async def schedules_meant(store: Store, which: str) -> list[ScheduleDocument]:
    """Return the scheduled jobs that the caller may see and that have this id, an id that begins so, or this name;
    newest first."""
    found: dict[str, ScheduleDocument] = {}
    for where in ({"id": which}, {"name": which}):
        same = await store.find(
            ScheduleDocument, where, limit=MOST_MEANT, without=ScheduleDocument.heavy
        )
        found |= {each.id: each for each in same}
    async for each in _beginning(store, ScheduleDocument, which):
        found[each.id] = each
    seen = [each for each in found.values() if may_see(each.permissions, caller().viewer)]
    return sorted(seen, key=lambda each: (each.created_at, each.id), reverse=True)
