"""Endpoints for scheduled jobs: create, list, get, change, run now, pause, resume, delete."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import OK, PageView, Paging, StatusView, answer, flag, page_of, paging
from coordinator.api.routes import PAGE_PARAMS, Body, Param, Route
from coordinator.api.submissions import JSON_TYPES, YAML_TYPES, read_submission
from coordinator.api.visibility import check_permissions, may_see, schedule_in_path
from shared.model import language
from shared.model.documents import ScheduleDocument
from shared.model.views import (
    JobSummaryView,
    ScheduleView,
    job_summary,
    redactor_of,
    schedule_view,
)

_ORDER: Final = ("-created_at", "-id")


async def create_schedule(request: web.Request) -> web.StreamResponse:
    """Store a scheduled job, active from now on; with `dryRun`, only answer what would be stored."""
    api = api_of(request)
    dry = flag(request, "dryRun")
    sent = await read_submission(request, scheduled=True)
    if dry:
        await check_permissions(api, sent.definition.permissions)
        return answer(_view(api, api.commands.preview_schedule(sent.definition, caller().actor)))
    schedule = await api.commands.schedule(sent.definition, caller().actor)
    return answer(_view(api, schedule))


def _view(api: Api, schedule: ScheduleDocument) -> ScheduleView:
    redactor = redactor_of(schedule.definition, key_patterns=api.key_patterns)
    return schedule_view(schedule, redactor)


async def list_schedules(request: web.Request) -> web.StreamResponse:
    """Answer a page of scheduled jobs, newest first."""
    api, page = api_of(request), paging(request)
    if caller().viewer is None:
        total = await api.store.count(ScheduleDocument, {})
        found = await api.store.find(ScheduleDocument, {}, _ORDER, limit=page.size, skip=page.skip)
    else:
        total, found = await _visible(request, page)
    shown = [_view(api, schedule) for schedule in found]
    return answer(page_of(shown, number=page.number, size=page.size, total=total))


async def _visible(request: web.Request, page: Paging) -> tuple[int, list[ScheduleDocument]]:
    viewer = caller().viewer
    everything = await api_of(request).store.find(ScheduleDocument, {}, _ORDER)
    visible = [schedule for schedule in everything if may_see(schedule.permissions, viewer)]
    return len(visible), visible[page.skip :][: page.size]


async def get_schedule(request: web.Request) -> web.StreamResponse:
    """Answer a scheduled job."""
    return answer(_view(api_of(request), await schedule_in_path(request)))


async def pause_schedule(request: web.Request) -> web.StreamResponse:
    """Let it make no more jobs until it is resumed."""
    await api_of(request).commands.pause_schedule(await schedule_in_path(request))
    return answer(OK)


async def resume_schedule(request: web.Request) -> web.StreamResponse:
    """Let it make jobs again."""
    await api_of(request).commands.resume_schedule(await schedule_in_path(request))
    return answer(OK)


async def change_schedule(request: web.Request) -> web.StreamResponse:
    """Have it make other jobs, at other times, from now on; jobs that it made stay as they are."""
    api = api_of(request)
    schedule = await schedule_in_path(request)
    sent = await read_submission(request, scheduled=True)
    return answer(_view(api, await api.commands.change_schedule(schedule, sent.definition)))


async def run_schedule(request: web.Request) -> web.StreamResponse:
    """Make a job of it now, besides its firings, also while it is paused."""
    api = api_of(request)
    job = await api.commands.run_schedule(await schedule_in_path(request))
    redactor = redactor_of(job.definition, key_patterns=api.key_patterns)
    return answer(job_summary(job, redactor))


async def delete_schedule(request: web.Request) -> web.StreamResponse:
    """Delete it; jobs that it made stay."""
    await api_of(request).commands.delete_schedule(await schedule_in_path(request))
    return answer(OK)


_NOT_FOUND: Final = {404: "The scheduled job does not exist."}

SCHEDULE_ROUTES: Final = (
    Route(
        method="POST",
        path="/scheduled-jobs",
        handler=create_schedule,
        group="scheduled_jobs",
        summary="Schedule a job",
        params=(
            Param(
                "dryRun",
                "Validate the scheduled job and return what would be stored, without storing it.",
                bool,
                False,
            ),
        ),
        body=Body(language.JobDefinition, (*JSON_TYPES, *YAML_TYPES)),
        answer=ScheduleView,
        errors={
            400: "The document is not a valid scheduled job; all problems are listed.",
            413: "The body is too large.",
            415: "The content type is not supported.",
        },
    ),
    Route(
        method="GET",
        path="/scheduled-jobs",
        handler=list_schedules,
        group="scheduled_jobs",
        summary="List scheduled jobs, newest first",
        params=PAGE_PARAMS,
        answer=PageView[ScheduleView],
        errors={400: "A parameter is not a number."},
    ),
    Route(
        method="GET",
        path="/scheduled-jobs/{id}",
        handler=get_schedule,
        group="scheduled_jobs",
        summary="Get a scheduled job",
        answer=ScheduleView,
        errors=_NOT_FOUND,
    ),
    Route(
        method="PUT",
        path="/scheduled-jobs/{id}",
        handler=change_schedule,
        group="scheduled_jobs",
        summary="Change a scheduled job",
        body=Body(language.JobDefinition, (*JSON_TYPES, *YAML_TYPES)),
        answer=ScheduleView,
        errors={
            400: "The document is not a valid scheduled job; all problems are listed.",
            409: "Somebody else changed the scheduled job at the same time.",
            413: "The body is too large.",
            415: "The content type is not supported.",
            **_NOT_FOUND,
        },
    ),
    Route(
        method="POST",
        path="/scheduled-jobs/{id}/run",
        handler=run_schedule,
        group="scheduled_jobs",
        summary="Run a scheduled job now",
        answer=JobSummaryView,
        errors=_NOT_FOUND,
    ),
    Route(
        method="PUT",
        path="/scheduled-jobs/{id}/pause",
        handler=pause_schedule,
        group="scheduled_jobs",
        summary="Pause a scheduled job",
        answer=StatusView,
        errors={400: "The scheduled job is not active.", **_NOT_FOUND},
    ),
    Route(
        method="PUT",
        path="/scheduled-jobs/{id}/resume",
        handler=resume_schedule,
        group="scheduled_jobs",
        summary="Resume a paused scheduled job",
        answer=StatusView,
        errors={400: "The scheduled job is not paused.", **_NOT_FOUND},
    ),
    Route(
        method="DELETE",
        path="/scheduled-jobs/{id}",
        handler=delete_schedule,
        group="scheduled_jobs",
        summary="Delete a scheduled job",
        answer=StatusView,
        errors=_NOT_FOUND,
    ),
)
