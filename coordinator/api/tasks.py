"""Tasks."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.http import answer
from coordinator.api.routes import Route
from coordinator.api.view_data import redactor, task_views
from coordinator.api.visibility import task_in_path
from shared.model.views import TaskView


async def get_task(request: web.Request) -> web.StreamResponse:
    """Answer a task."""
    api = api_of(request)
    task, job = await task_in_path(request)
    return answer((await task_views(api, [task], await redactor(api, job)))[0])


TASK_ROUTES: Final = (
    Route(
        method="GET",
        path="/tasks/{id}",
        handler=get_task,
        group="tasks",
        summary="Get a task",
        answer=TaskView,
        errors={404: "The task does not exist."},
    ),
)
