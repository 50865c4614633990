"""Endpoints for logs: pages of parts, the whole log as text, and streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from coordinator.api.context import Api, api_of
from coordinator.api.http import HttpError, PageView, Paging, answer, page_of, paging
from coordinator.api.log_cursor import read_cursor
from coordinator.api.log_follower import FollowedLine, Follower
from coordinator.api.log_parts import await_parts, counted_parts, recently_ended, whole_log
from coordinator.api.routes import Media, Param, Route
from coordinator.api.sse import EventStream
from coordinator.api.visibility import job_in_path, task_in_path
from shared.model.documents import JobDocument, LogPartDocument, TaskDocument
from shared.model.queries import Where
from shared.model.views import LogPartView, log_part_view

SIZE: Final = 25
_MAX_SIZE: Final = 100


async def list_job_log(request: web.Request) -> web.StreamResponse:
    """Answer a page of the log parts of a job, newest first."""
    api, page = api_of(request), paging(request, size=SIZE, most=_MAX_SIZE)
    job = await job_in_path(request)
    if page.number == 1:
        await await_parts(api, await recently_ended(api, job))
    terms = _terms(request)
    found = await api.store.log_page(
        job_id=job.id, task_ids=None, terms=terms, skip=page.skip, limit=page.size
    )
    return _page(page, await counted_parts(api, found.items), found.total, capped=found.capped)


async def list_task_log(request: web.Request) -> web.StreamResponse:
    """Answer a page of the log parts of a task's counted run, newest first."""
    api, page = api_of(request), paging(request, size=SIZE, most=_MAX_SIZE)
    task, _ = await task_in_path(request)
    if page.number == 1:
        await await_parts(api, [task])
    terms = _terms(request)
    if not terms:
        return await _counted_run(api, task, page)
    found = await api.store.log_page(
        job_id=None, task_ids=[task.id], terms=terms, skip=page.skip, limit=page.size
    )
    return _page(page, await counted_parts(api, found.items), found.total, capped=found.capped)


def _terms(request: web.Request) -> tuple[str, ...]:
    return tuple(request.query.get("q", "").split())


async def _counted_run(api: Api, task: TaskDocument, page: Paging) -> web.Response:
    where: Where = {"task_id": task.id, "run": task.run}
    parts = await api.store.find(
        LogPartDocument, where, ("-number",), limit=page.size, skip=page.skip
    )
    return _page(page, parts, await api.store.count(LogPartDocument, where))


def _page(
    page: Paging, parts: list[LogPartDocument], total: int, *, capped: bool = False
) -> web.Response:
    shown = [log_part_view(part) for part in parts]
    return answer(page_of(shown, number=page.number, size=page.size, total=total, capped=capped))


async def stream_job_log(request: web.Request) -> web.StreamResponse:
    """Stream the log of a job: all lines so far, then live, and `end`."""
    return await _stream(request, await job_in_path(request), None)


async def stream_task_log(request: web.Request) -> web.StreamResponse:
    """Stream the log of a task: all lines so far, then live, and `end`."""
    task, job = await task_in_path(request)
    return await _stream(request, job, task)


async def _stream(
    request: web.Request, job: JobDocument, task: TaskDocument | None
) -> web.StreamResponse:
    api = api_of(request)
    cursor = read_cursor(request.headers.get("Last-Event-ID", ""))
    written = _FORMS.get(request.query.get("format", "text"))
    if written is None:
        raise HttpError(400, "format: must be text or json")
    follower = Follower(api, job, task, cursor)
    stream = EventStream(request)
    async with stream:
        if stream.wanted:
            await _send(follower, stream, written)
        if stream.wanted and not api.closing.is_set():
            await stream.send(f'{{"state":"{follower.state or "DELETED"}"}}', event="end")
    return stream.response


def _as_part(line: FollowedLine) -> str:
    """Return a line as a log part of its own, in JSON."""
    view = msgspec.structs.replace(log_part_view(line.part), contents=line.text + "\n")
    return msgspec.json.encode(view).decode()


_FORMS: Final[dict[str, Callable[[FollowedLine], str]]] = {
    "text": lambda line: line.text,
    "json": _as_part,
}


async def _send(
    follower: Follower, stream: EventStream, written: Callable[[FollowedLine], str]
) -> None:
    async for line in follower.lines():
        if line is not None:
            await stream.gather(written(line), id=line.id)
            continue
        await stream.flush()
        if not stream.wanted:
            return
        await stream.idle()


async def download_job_log(request: web.Request) -> web.StreamResponse:
    """Answer all of a job's log as text, as it is read."""
    api = api_of(request)
    job = await job_in_path(request)
    await await_parts(api, await recently_ended(api, job))
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{_file_name(job.id)}.log"',
        }
    )
    await response.prepare(request)
    if request.method != "HEAD":
        async for text in whole_log(api, job):
            await response.write(text.encode("utf-8", "replace"))
    await response.write_eof()
    return response


def _file_name(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())[:64] or "job"


_PARAMS: Final = (
    Param("page", "Page number; values out of range are clamped.", int, 1),
    Param("size", "Parts per page, 1 to 100; values out of range are clamped.", int, SIZE),
    Param("q", "Words that each part must contain."),
)
_LAST: Final = (
    Param(
        "format",
        "text: each event is a line; json: each event is a log part with one line.",
        default="text",
    ),
    Param("Last-Event-ID", "Resume after this event.", place="header"),
)
_EVENTS: Final = Media(
    "text/event-stream",
    "An event for each line, with an id to resume from; then `end` when the log is complete.",
)
_NO_JOB: Final = {404: "The job does not exist."}
_NO_TASK: Final = {404: "The task does not exist."}

LOG_ROUTES: Final = (
    Route(
        method="GET",
        path="/jobs/{id}/log",
        handler=list_job_log,
        group="logs",
        summary="List the log parts of a job, newest first",
        params=_PARAMS,
        answer=PageView[LogPartView],
        errors=_NO_JOB,
    ),
    Route(
        method="GET",
        path="/jobs/{id}/log/stream",
        handler=stream_job_log,
        group="logs",
        summary="Stream the log of a job",
        params=_LAST,
        answer=_EVENTS,
        errors=_NO_JOB,
        endless=True,
    ),
    Route(
        method="GET",
        path="/jobs/{id}/log/download",
        handler=download_job_log,
        group="logs",
        summary="Download the log of a job",
        answer=Media("text/plain", "The whole log."),
        errors=_NO_JOB,
        endless=True,
    ),
    Route(
        method="GET",
        path="/tasks/{id}/log",
        handler=list_task_log,
        group="logs",
        summary="List the log parts of a task, newest first",
        params=_PARAMS,
        answer=PageView[LogPartView],
        errors=_NO_TASK,
    ),
    Route(
        method="GET",
        path="/tasks/{id}/log/stream",
        handler=stream_task_log,
        group="logs",
        summary="Stream the log of a task",
        params=_LAST,
        answer=_EVENTS,
        errors=_NO_TASK,
        endless=True,
    ),
)
