"""Tasks."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import (
    HttpError,
    PageView,
    Param,
    Route,
    answer,
    page_of,
    page_params,
    paging,
)
from coordinator.api.view_data import read_these, redactor, task_views
from coordinator.api.visibility import may_see, task_in_path
from coordinator.api.waiting import WhyView, why_task
from shared.model.documents import JobDocument, TaskDocument
from shared.model.queries import In
from shared.model.states import TaskState
from shared.model.views import TaskView
from shared.redaction import Redactor

_MOST: Final = 1000
"""Tasks of one node that are looked at."""


async def get_task(request: web.Request) -> web.StreamResponse:
    """Answer a task."""
    api = api_of(request)
    task, job = await task_in_path(request)
    return answer((await task_views(api, [task], await redactor(api, job)))[0])


async def why_of_task(request: web.Request) -> web.StreamResponse:
    """Answer why a task does not run, or why it failed."""
    api = api_of(request)
    task, job = await task_in_path(request)
    return answer(await why_task(api, task, await redactor(api, job)))


async def list_tasks_of_node(request: web.Request) -> web.StreamResponse:
    """Answer what a node runs, as far as the caller may see it."""
    api, page = api_of(request), paging(request, most=_MOST)
    node = request.query.get("nodeId", "")
    if not node:
        raise HttpError(400, "nodeId: say which node")
    where = {"node_id": node, "state": TaskState.RUNNING}
    tasks = await api.store.find(
        TaskDocument, where, ("started_at",), limit=_MOST, without=TaskDocument.heavy
    )
    theirs = {"id": In(tuple({task.job_id for task in tasks}))}
    jobs = {
        job.id
        for job in await api.store.find(JobDocument, theirs, without=JobDocument.heavy)
        if job.deleted_at is None and may_see(job.permissions, caller().viewer)
    }
    seen = [task for task in tasks if task.job_id in jobs]
    found, abridged = await read_these(api, seen[page.skip :][: page.size])
    redact = {id: await _redactor_of(api, id) for id in {task.job_id for task in found}}
    shown = [
        (await task_views(api, [task], its_redactor, abridged))[0]
        for task in found
        if (its_redactor := redact[task.job_id]) is not None
    ]
    return answer(page_of(shown, number=page.number, size=page.size, total=len(seen)))


async def _redactor_of(api: Api, job_id: str) -> Redactor | None:
    job = await api.store.get(JobDocument, job_id)
    return None if job is None else await redactor(api, job)


_ERRORS: Final = {
    404: "The task does not exist.",
    409: "The id is shortened, and more than one begins so.",
}

TASK_ROUTES: Final = (
    Route(
        method="GET",
        path="/tasks",
        handler=list_tasks_of_node,
        group="tasks",
        summary="List the tasks that a node runs",
        params=(
            Param("nodeId", "The node."),
            *page_params(_MOST),
        ),
        answer=PageView[TaskView],
        errors={400: "`nodeId` is missing."},
    ),
    Route(
        method="GET",
        path="/tasks/{id}",
        handler=get_task,
        group="tasks",
        summary="Get a task",
        answer=TaskView,
        errors=_ERRORS,
    ),
    Route(
        method="GET",
        path="/tasks/{id}/why",
        handler=why_of_task,
        group="tasks",
        summary="Tell why a task does not run, or why it failed",
        answer=WhyView,
        errors=_ERRORS,
    ),
)
