"""Endpoints for scheduled jobs: create, list, get, change, run now, pause, resume, delete."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from aiohttp import web
from msgspec.structs import replace

from coordinator.api.audit import done_to, made_job
from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import (
    OK,
    PAGE_PARAMS,
    Body,
    PageView,
    Paging,
    Param,
    Route,
    StatusView,
    answer,
    flag,
    page_of,
    paging,
)
from coordinator.api.jobs import MAX_TOTAL
from coordinator.api.submissions import JSON_TYPES, SCHEDULE_EXAMPLE, YAML_TYPES, read_submission
from coordinator.api.view_data import (
    hidden_in,
    made_view,
    read_views,
    redactor_for,
    size_of_texts,
    summary,
    with_creators,
)
from coordinator.api.visibility import may_see, schedule_in_path, schedules_meant
from coordinator.engine.schedule_firings import next_firings
from shared.model import language
from shared.model.documents import ScheduleDocument
from shared.model.views import (
    JobSummaryView,
    ScheduleView,
    schedule_view,
)

_ORDER: Final = ("-created_at", "-id")

_PIECE: Final = 500
"""Scheduled jobs that are read at once to find those that the caller may see."""
SHOWN_FIRINGS: Final = 3
"""How many of the next firings are shown."""


async def create_schedule(request: web.Request) -> web.StreamResponse:
    """Store a scheduled job, active from now on; with `dryRun`, only answer what would be stored."""
    api = api_of(request)
    dry = flag(request, "dryRun")
    sent = await read_submission(request, scheduled=True)
    if dry:
        shown = await api.commands.preview_schedule(sent.definition, caller().actor)
        return answer(await _view(api, shown))
    schedule = await api.commands.schedule(sent.definition, caller().actor)
    done_to(request, schedule.id)
    return answer(await _view(api, schedule))


async def _view(api: Api, schedule: ScheduleDocument) -> ScheduleView:
    (told,) = await with_creators(api, [schedule])
    return await _shown(api, told)


async def _shown(api: Api, schedule: ScheduleDocument) -> ScheduleView:
    redactor = await redactor_for(api, hidden_in(api, schedule))
    next_at = next_firings(schedule, SHOWN_FIRINGS)
    view = partial(schedule_view, schedule, redactor, next_at)
    return await made_view(api, redactor, partial(size_of_texts, schedule), view)


async def _views(api: Api, schedules: Sequence[ScheduleDocument]) -> list[ScheduleView]:
    """Return those of `schedules` that the caller may see."""
    viewer = caller().viewer
    seen = [each for each in schedules if may_see(each.permissions, viewer)]
    return [await _shown(api, each) for each in await with_creators(api, seen)]


async def list_schedules(request: web.Request) -> web.StreamResponse:
    """Answer a page of scheduled jobs, newest first."""
    api, page = api_of(request), paging(request)
    capped = False
    if which := request.query.get("which"):
        meant = await schedules_meant(api.store, which)
        total, found = len(meant), meant[page.skip :][: page.size]
    elif caller().viewer is None:
        total = await api.store.count(ScheduleDocument, {})
        found = await api.store.find(
            ScheduleDocument,
            {},
            _ORDER,
            limit=page.size,
            skip=page.skip,
            without=ScheduleDocument.heavy,
        )
    else:
        total, found, capped = await _visible(request, page)
    shown = await read_views(
        [schedule.id for schedule in found],
        partial(api.store.get_many, ScheduleDocument),
        partial(_views, api),
        lambda view: replace(
            view, tasks=[], inputs={}, output="", defaults=None, webhooks=[], abridged=True
        ),
    )
    return answer(page_of(shown, number=page.number, size=page.size, total=total, capped=capped))


async def _visible(request: web.Request, page: Paging) -> tuple[int, list[ScheduleDocument], bool]:
    """Return how many the caller may see, those of the page, and whether there may be more: no more is read than
    the page needs."""
    viewer, store = caller().viewer, api_of(request).store
    visible: list[ScheduleDocument] = []
    enough = min(page.skip + page.size, MAX_TOTAL)
    read = 0
    while len(visible) <= enough:
        piece = await store.find(
            ScheduleDocument, {}, _ORDER, limit=_PIECE, skip=read, without=ScheduleDocument.heavy
        )
        visible += [each for each in piece if may_see(each.permissions, viewer)]
        read += len(piece)
        if len(piece) < _PIECE:
            return len(visible), visible[page.skip :][: page.size], False
    return len(visible), visible[page.skip :][: page.size], True


async def get_schedule(request: web.Request) -> web.StreamResponse:
    """Answer a scheduled job."""
    return answer(await _view(api_of(request), await schedule_in_path(request)))


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
    changed = await api.commands.change_schedule(schedule, sent.definition, caller().actor)
    return answer(await _view(api, changed))


async def run_schedule(request: web.Request) -> web.StreamResponse:
    """Make a job of it now, besides its firings, also while it is paused."""
    api = api_of(request)
    job = await api.commands.run_schedule(await schedule_in_path(request))
    await made_job(request, job.id)
    return answer(await summary(api, job))


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
        body=Body(language.JobDefinition, (*JSON_TYPES, *YAML_TYPES), SCHEDULE_EXAMPLE),
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
        params=(
            *PAGE_PARAMS,
            Param(
                "which",
                "Only those with this id, with an id that begins so (6 digits or more), or with this name.",
            ),
        ),
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
        body=Body(language.JobDefinition, (*JSON_TYPES, *YAML_TYPES), SCHEDULE_EXAMPLE),
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
