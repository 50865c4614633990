"""Endpoints for jobs: submit, list, get, cancel, restart, delete."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import api_of, caller
from coordinator.api.http import (
    OK,
    HttpError,
    PageView,
    Question,
    StatusView,
    answer,
    page_of,
    paging,
    question,
)
from coordinator.api.routes import PAGE_PARAMS, Body, Param, Route
from coordinator.api.submissions import JSON_TYPES, YAML_TYPES, submit_job
from coordinator.api.view_data import (
    MAX_EXECUTION,
    in_order,
    redactor,
    summaries,
    task_views,
    whole_job,
)
from coordinator.api.visibility import job_in_path
from shared.model import language
from shared.model.documents import TaskDocument
from shared.model.states import JobState
from shared.model.views import JobSummaryView, JobView, TaskView

MAX_TOTAL: Final = 10_000
"""Where totals stop when there is a filter."""


async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Answer a page of jobs, newest first."""
    api, page = api_of(request), paging(request)
    asked = _question(request)
    found = await api.store.search_jobs(
        terms=asked.terms,
        tags_any=asked.tags_any,
        state=_state(request),
        viewer=caller().viewer,
        skip=page.skip,
        limit=page.size,
        cap=MAX_TOTAL,
    )
    return answer(
        page_of(
            await summaries(api, [job for job in found.items if job.deleted_at is None]),
            number=page.number,
            size=page.size,
            total=found.total,
            capped=found.capped,
        )
    )


def _question(request: web.Request) -> Question:
    asked = question(request.query.get("q", ""))
    tags = tuple((tag,) for tag in request.query.getall("tag", []) if tag)
    return Question(asked.terms, asked.tags_any + tags)


def _state(request: web.Request) -> str | None:
    state = request.query.get("state", "").strip().upper()
    if state and state not in list(JobState):
        raise HttpError(400, f"state: must be one of {', '.join(JobState)}")
    return state or None


async def get_job(request: web.Request) -> web.StreamResponse:
    """Answer a job with its tasks and their execution."""
    job = await job_in_path(request)
    return answer(await whole_job(api_of(request), job))


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """Answer a page of a job's execution.

    A long one (over 1,000 tasks) comes by position, then creation: what an index can serve.
    """
    api, page = api_of(request), paging(request)
    job = await job_in_path(request)
    where, order = {"job_id": job.id}, ("position", "created_at")
    total = await api.store.count(TaskDocument, where)
    if total <= MAX_EXECUTION:
        tasks = in_order(await api.store.find(TaskDocument, where, order))[page.skip :][: page.size]
    else:
        tasks = await api.store.find(TaskDocument, where, order, limit=page.size, skip=page.skip)
    shown = await task_views(api, tasks, await redactor(api, job))
    return answer(page_of(shown, number=page.number, size=page.size, total=total))


async def cancel_job(request: web.Request) -> web.StreamResponse:
    """Cancel a job; answers when that is stored."""
    await api_of(request).commands.cancel(await job_in_path(request))
    return answer(OK)


async def restart_job(request: web.Request) -> web.StreamResponse:
    """Let a job go on from the task that failed or was cancelled."""
    await api_of(request).commands.restart(await job_in_path(request))
    return answer(OK)


async def delete_job(request: web.Request) -> web.StreamResponse:
    """Delete an ended job, its tasks and logs."""
    await api_of(request).commands.delete(await job_in_path(request))
    return answer(OK)


_NOT_FOUND: Final = {404: "The job does not exist."}

JOB_ROUTES: Final = (
    Route(
        method="POST",
        path="/jobs",
        handler=submit_job,
        group="jobs",
        summary="Submit a job",
        body=Body(language.JobDefinition, (*JSON_TYPES, *YAML_TYPES)),
        params=(
            Param(
                "dryRun",
                "Validate the job and return what would be stored, without storing it.",
                bool,
                False,
            ),
            Param(
                "Idempotency-Key",
                "A repeated request with the same key and body returns the first job.",
                place="header",
            ),
        ),
        answer=(JobSummaryView, JobView),
        errors={
            400: "The document is not a valid job; all problems are listed.",
            408: "The job did not end within its `wait` timeout.",
            409: "The idempotency key was used before with another body.",
            413: "The body is too large.",
            415: "The content type is not supported.",
        },
        endless=True,
    ),
    Route(
        method="GET",
        path="/jobs",
        handler=list_jobs,
        group="jobs",
        summary="List jobs, newest first",
        params=(
            *PAGE_PARAMS,
            Param("q", "Words from the name, description, tags and state; or `tag:x`, `tags:a,b`."),
            Param("state", "Only jobs in this state."),
            Param("tag", "Only jobs with this tag."),
        ),
        answer=PageView[JobSummaryView],
        errors={400: "A parameter is not a number."},
    ),
    Route(
        method="GET",
        path="/jobs/{id}",
        handler=get_job,
        group="jobs",
        summary="Get a job with its execution",
        answer=JobView,
        errors=_NOT_FOUND,
    ),
    Route(
        method="GET",
        path="/jobs/{id}/tasks",
        handler=list_tasks,
        group="jobs",
        summary="List a job's execution",
        params=PAGE_PARAMS,
        answer=PageView[TaskView],
        errors=_NOT_FOUND,
    ),
    Route(
        method="PUT",
        path="/jobs/{id}/cancel",
        handler=cancel_job,
        group="jobs",
        summary="Cancel a running job",
        answer=StatusView,
        errors={400: "The job is not running.", **_NOT_FOUND},
    ),
    Route(
        method="PUT",
        path="/jobs/{id}/restart",
        handler=restart_job,
        group="jobs",
        summary="Restart a failed or cancelled job",
        answer=StatusView,
        errors={400: "The job can't be restarted.", **_NOT_FOUND},
    ),
    Route(
        method="DELETE",
        path="/jobs/{id}",
        handler=delete_job,
        group="jobs",
        summary="Delete an ended job",
        answer=StatusView,
        errors={400: "The job is still running.", **_NOT_FOUND},
    ),
)
