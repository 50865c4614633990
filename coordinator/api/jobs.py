"""Endpoints for jobs: submit, list, get, cancel, restart, delete."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec.structs import replace

from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import (
    OK,
    PAGE_PARAMS,
    Body,
    HttpError,
    PageView,
    Param,
    Question,
    Route,
    StatusView,
    answer,
    flag,
    page_of,
    page_params,
    paging,
    question,
)
from coordinator.api.reruns import RerunRequest, RerunView, rerun_job
from coordinator.api.submissions import JOB_EXAMPLE, JSON_TYPES, YAML_TYPES, submit_job
from coordinator.api.view_data import (
    MAX_EXECUTION,
    in_order,
    read_bounded,
    read_these,
    read_views,
    redactor,
    summaries,
    task_views,
    whole_job,
)
from coordinator.api.visibility import job_in_path, whole_task_id
from coordinator.api.waiting import WhyView, innermost, waiting_jobs, why_job
from shared.model import language
from shared.model.documents import DeliveryDocument, JobDocument, TaskDocument
from shared.model.queries import In
from shared.model.states import DeliveryState, JobState, TaskState
from shared.model.views import JobSummaryView, JobView, TaskView, View, rfc3339
from shared.model.views.redacted import TimeText

MAX_TOTAL: Final = 10_000
"""Where totals stop when there is a filter."""
NO_PARENT: Final = "none"
_WHERE_PARAMS: Final = (
    Param("scheduleId", "Only jobs that this schedule made."),
    Param("parentId", "Only the sub-jobs of this task; `none`: only jobs that are no sub-job."),
)
"""Stands for what has no parent."""
_MAX_TAGS: Final = 100


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
        where=await _where(request),
        without=JobDocument.heavy,
    )
    there = [job for job in found.items if job.deleted_at is None]
    waiting = await waiting_jobs(api, there)
    return answer(
        page_of(
            await read_views(
                [job.id for job in there],
                partial(api.store.get_many, JobDocument),
                partial(summaries, api, waiting=waiting),
                lambda view: replace(view, result="", inputs={}, abridged=True),
            ),
            number=page.number,
            size=page.size,
            total=found.total,
            capped=found.capped,
        ),
    )


async def _where(request: web.Request) -> dict[str, str | None]:
    """Return what `scheduleId` and `parentId` ask for."""
    where: dict[str, str | None] = {}
    schedule, parent = (request.query.get(name, "") for name in ("scheduleId", "parentId"))
    if schedule:
        where["schedule.id"] = schedule
    if parent:
        where["parent_id"] = None if parent == NO_PARENT else await whole_task_id(request, parent)
    return where


class CountsView(View, frozen=True, kw_only=True):
    """How many jobs the caller may see are in each state, and have each tag.

    `statesCapped`: the states of which there are more than the 10,000 that are counted. `tagsCapped`: there are more
    jobs than the newest 10,000, whose tags are counted, or more tags than the 100 most frequent, which are shown."""

    states: dict[str, int]
    tags: dict[str, int]
    states_capped: list[str] = msgspec.field(default_factory=list)
    tags_capped: bool = False


async def count_jobs(request: web.Request) -> web.StreamResponse:
    """Answer how many jobs there are by state and by tag."""
    api, viewer = api_of(request), caller().viewer
    search = partial(
        api.store.search_jobs,
        terms=(), tags_any=(), viewer=viewer, skip=0, limit=0, cap=MAX_TOTAL,
    )  # fmt: skip
    where = await _where(request)
    found = {state.value: await search(state=state, where=where) for state in JobState}
    tags = await api.store.tag_counts(viewer, MAX_TOTAL)
    first = sorted(tags.items(), key=lambda each: (-each[1], each[0]))[:_MAX_TAGS]
    seen = await search(state=None)
    return answer(
        CountsView(
            states={state: page.total for state, page in found.items() if page.total},
            tags=dict(first),
            states_capped=[state for state, page in found.items() if page.capped],
            tags_capped=seen.total > MAX_TOTAL or seen.capped or len(tags) > _MAX_TAGS,
        )
    )


def _question(request: web.Request) -> Question:
    asked = question(request)
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
    executed = flag(request, "execution", default=True)
    return answer(await whole_job(api_of(request), job, executed=executed))


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """Answer a page of a job's execution.

    A long one (over 1,000 tasks) comes by position, then creation: what an index can serve.
    """
    api, page = api_of(request), paging(request, most=MAX_EXECUTION)
    job = await job_in_path(request)
    parent = await whole_task_id(request, request.query.get("parentId", ""))
    where, counted = await _of_parent(api, job, parent)
    total, tasks, abridged = 0, list[TaskDocument](), set[str]()
    for states in _task_states(request):
        group = {} if states is None else {"state": In(states)}
        count = await api.store.count(TaskDocument, counted | group)
        group = (where if count > MAX_EXECUTION else counted) | group
        skip, left = max(0, page.skip - total), page.size - len(tasks)
        total += count
        if left and skip < count:
            some, short = await _group(api, group, count, skip, left)
            tasks += some
            abridged |= short
    shown = await task_views(api, tasks, await redactor(api, job), abridged)
    return answer(page_of(shown, number=page.number, size=page.size, total=total))


async def _of_parent(
    api: Api, job: JobDocument, parent: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return where the tasks are that have this parent: as an index serves them in order, and as one counts them."""
    of_job: dict[str, Any] = {"job_id": job.id}
    if not parent:
        return of_job, of_job
    where = of_job | {"parent_id": None if parent == NO_PARENT else parent}
    above = await api.store.get(TaskDocument, parent) if parent != NO_PARENT else None
    if above is None or above.job_id != job.id:
        return where, where
    return where, {"parent_id": parent}


async def _group(
    api: Api, where: dict[str, Any], count: int, skip: int, size: int
) -> tuple[list[TaskDocument], set[str]]:
    find, order = api.store.find, ("position", "created_at")
    if count > MAX_EXECUTION:
        return await read_bounded(
            lambda before, limit, without: find(
                TaskDocument, where, order, limit=limit, skip=skip + before, without=without
            ),
            size,
        )
    found = in_order(await find(TaskDocument, where, order, without=TaskDocument.heavy))
    return await read_these(api, found[skip : skip + size])


def _task_states(request: web.Request) -> list[tuple[TaskState, ...] | None]:
    """Return which states are asked for, in groups that come one after another; None for any state."""
    given = ",".join(request.query.getall("state", [])).upper()
    names = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in names if name not in list(TaskState)]:
        raise HttpError(400, f"state: {unknown[0]}: must be of {', '.join(TaskState)}")
    order = request.query.get("order", "")
    if order not in ("", "failed"):
        raise HttpError(400, "order: must be failed")
    states = tuple(TaskState(name) for name in names)
    if not order:
        return [states or None]
    wanted = states or tuple(TaskState)
    failed = tuple(state for state in wanted if state == TaskState.FAILED)
    rest = tuple(state for state in wanted if state != TaskState.FAILED)
    return [group for group in (failed, rest) if group]


class DeliveryView(View, frozen=True, kw_only=True):
    """What a webhook was told, or is to be told. `attempts`: tries so far; `next`: when it is tried again, of one that
    is PENDING; `error`: what came of the last try, where that failed; `status`: what the receiver answered to it, and
    `answeredAt` when, where an answer came."""

    id: str
    event: str
    url: str
    state: str
    attempts: int
    sequence: int
    created_at: TimeText
    next: TimeText = ""
    error: str = ""
    status: int | None = None
    answered_at: TimeText = ""


async def list_deliveries(request: web.Request) -> web.StreamResponse:
    """Answer a page of the deliveries of a job's webhooks, newest first."""
    api, page = api_of(request), paging(request)
    job = await job_in_path(request)
    shown, where = await redactor(api, job), {"job_id": job.id}
    found = await api.store.find(
        DeliveryDocument,
        where,
        ("-created_at", "-id"),
        limit=page.size,
        skip=page.skip,
        without=DeliveryDocument.heavy,
    )
    views = [
        DeliveryView(
            id=each.id,
            event=each.event,
            url=shown.redact(each.opened().url),
            state=each.state,
            attempts=each.attempts,
            sequence=each.sequence,
            created_at=rfc3339(each.created_at),
            next=rfc3339(each.due_at) if each.state == DeliveryState.PENDING else "",
            error=each.error or each.locked,
            status=each.status,
            answered_at=rfc3339(each.answered_at),
        )
        for each in found
    ]
    total = await api.store.count(DeliveryDocument, where)
    return answer(page_of(views, number=page.number, size=page.size, total=total))


async def why_of_job(request: web.Request) -> web.StreamResponse:
    """Answer why a job does not run, or why it failed."""
    api, job = api_of(request), await job_in_path(request)
    inside = await innermost(api, job)
    return answer(await why_job(api, job, await redactor(api, inside), inside))


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


_NOT_FOUND: Final = {
    404: "The job does not exist.",
    409: "The id is shortened, and more than one begins so.",
}

_NO_PARENT_TASK: Final = {
    404: "`parentId` is shortened, and no task begins so.",
    409: "`parentId` is shortened, and more than one begins so.",
}

JOB_ROUTES: Final = (
    Route(
        method="POST",
        path="/jobs",
        handler=submit_job,
        group="jobs",
        summary="Submit a job",
        body=Body(language.JobDefinition, (*JSON_TYPES, *YAML_TYPES), JOB_EXAMPLE),
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
            Param(
                "q",
                "Words from the name, description, tags and state; or `tag:x`, `tags:a,b`; at most 16.",
            ),
            Param("state", "Only jobs in this state, in any case."),
            Param("tag", "Only jobs with this tag."),
            *_WHERE_PARAMS,
        ),
        answer=PageView[JobSummaryView],
        errors={400: "A parameter is not a number, or `q` has too many words.", **_NO_PARENT_TASK},
    ),
    Route(
        method="GET",
        path="/jobs/counts",
        handler=count_jobs,
        group="jobs",
        summary="Count jobs by state, and all jobs by tag",
        params=_WHERE_PARAMS,
        answer=CountsView,
        errors={400: "A parameter is too long.", **_NO_PARENT_TASK},
    ),
    Route(
        method="GET",
        path="/jobs/{id}",
        handler=get_job,
        group="jobs",
        summary="Get a job with its execution",
        params=(Param("execution", "`false` leaves its execution out.", bool, True),),
        answer=JobView,
        errors=_NOT_FOUND,
    ),
    Route(
        method="GET",
        path="/jobs/{id}/tasks",
        handler=list_tasks,
        group="jobs",
        summary="List a job's execution",
        params=(
            *page_params(MAX_EXECUTION),
            Param("state", "Only tasks in these states, separated by commas."),
            Param("parentId", "Only the children of this task; `none`: only the top level."),
            Param("order", "`failed`: those that failed come first."),
        ),
        answer=PageView[TaskView],
        errors={400: "A parameter is not what it can be.", **_NOT_FOUND},
    ),
    Route(
        method="GET",
        path="/jobs/{id}/why",
        handler=why_of_job,
        group="jobs",
        summary="Tell why a job does not run, or why it failed",
        answer=WhyView,
        errors=_NOT_FOUND,
    ),
    Route(
        method="GET",
        path="/jobs/{id}/deliveries",
        handler=list_deliveries,
        group="jobs",
        summary="List what a job's webhooks were told, newest first",
        params=PAGE_PARAMS,
        answer=PageView[DeliveryView],
        errors=_NOT_FOUND,
    ),
    Route(
        method="POST",
        path="/jobs/{id}/rerun",
        handler=rerun_job,
        group="jobs",
        summary="Make a new job like this one",
        body=Body(RerunRequest, required=False),
        params=(Param("dryRun", "Return what would be kept and what would run.", bool, False),),
        answer=(JobSummaryView, RerunView),
        errors={
            400: "The job that this would make is not valid, or has no such step.",
            **_NOT_FOUND,
        },
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
