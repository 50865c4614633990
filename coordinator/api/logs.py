"""Endpoints for logs: pages of parts, the whole log as text, and streams."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from coordinator.api.context import Api, api_of, caller_id
from coordinator.api.http import (
    HttpError,
    Media,
    PageView,
    Paging,
    Param,
    Route,
    answer,
    page_of,
    page_params,
    paging,
    words_asked,
)
from coordinator.api.log_cursor import read_cursor
from coordinator.api.log_follower import FollowedLine, Follower
from coordinator.api.log_parts import (
    READ_BATCH,
    await_parts,
    counted_parts,
    fitting,
    recently_ended,
    whole_log,
)
from coordinator.api.sse import EventStream
from coordinator.api.visibility import job_in_path, task_in_path
from coordinator.store.port import DocumentPage
from shared.durations import duration_seconds
from shared.http_server import BoundedConnection
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
)
from shared.model.queries import Above
from shared.model.views import LogPartView, log_part_view

SIZE: Final = 25
_NUMBER: Final = re.compile("[0-9]{1,9}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SIZE: Final = 1000
_LONG_PAGE: Final = 100
"""Parts that a page may have without waiting for others."""
_MAX_TAIL: Final = 100_000
_MAX_TAIL_CHARACTERS: Final = 16 * 1024 * 1024
"""Lines that `tail` answers at the most."""


async def list_job_log(request: web.Request) -> web.StreamResponse:
    """Answer a page of the log parts of a job, newest first."""
    api, page = api_of(request), paging(request, size=SIZE, most=_MAX_SIZE)
    job = await job_in_path(request)
    if page.number == 1:
        await await_parts(api, await recently_ended(api, job))
    asked = _Asked.of(request, api)
    async with _in_turn(request, page, asked):
        return await _listed(api, asked, page, _Log(job_id=job.id))


async def list_task_log(request: web.Request) -> web.StreamResponse:
    """Answer a page of the log parts of a task's counted run, newest first."""
    api, page = api_of(request), paging(request, size=SIZE, most=_MAX_SIZE)
    task, _ = await task_in_path(request)
    if page.number == 1:
        await await_parts(api, [task])
    asked = _Asked.of(request, api)
    async with _in_turn(request, page, asked):
        if not asked.terms and asked.tail is None:
            return await _counted_run(api, task, page, asked)
        return await _listed(api, asked, page, _Log(task_ids=(task.id,)))


@asynccontextmanager
async def _in_turn(request: web.Request, page: Paging, asked: _Asked) -> AsyncIterator[None]:
    """Wait for one's turn, and room for it, where the page may be of tens of megabytes."""
    if (page.size if asked.tail is None else asked.tail) <= _LONG_PAGE:
        yield
        return
    async with api_of(request).long_pages.turn(caller_id()):
        connection = request.protocol
        if isinstance(connection, BoundedConnection):
            await connection.room()
        yield


class _Asked(msgspec.Struct, frozen=True):
    """Which parts of a log are asked for. `tail`: the last so many lines; `since`: in microseconds."""

    terms: tuple[str, ...]
    oldest_first: bool
    tail: int | None
    since: Micros | None

    @classmethod
    def of(cls, request: web.Request, api: Api) -> Self:
        """Read it from the parameters; 400 where they make no sense."""
        order = request.query.get("order") or "desc"
        if order not in ("asc", "desc"):
            raise HttpError(400, "order: must be asc or desc")
        tail = request.query.get("tail", "")
        if tail and not _NUMBER.fullmatch(tail):
            raise HttpError(400, "tail: must be a number of lines")
        return cls(
            terms=words_asked(request),
            oldest_first=order == "asc",
            tail=min(int(tail), _MAX_TAIL) if tail else None,
            since=_since(request.query.get("since", ""), api.store.now()),
        )


def _since(text: str, now: Micros) -> Micros | None:
    """Return the time that a time or a duration before now stands for."""
    if not text:
        return None
    try:
        return now - int(duration_seconds(text) * MICROS_PER_SECOND)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise HttpError(
            400, "since: must be a time as 2026-01-31T12:00:00Z or a duration as 10m"
        ) from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - _EPOCH) // timedelta(microseconds=1)


class _Log(msgspec.Struct, frozen=True):
    """Whose log is read."""

    job_id: str | None = None
    task_ids: tuple[str, ...] | None = None


async def _listed(api: Api, asked: _Asked, page: Paging, log: _Log) -> web.Response:
    if asked.tail is None:
        some = await _found(
            *(api, asked, log), skip=page.skip, limit=page.size, oldest_first=asked.oldest_first
        )
        return _page(page, await counted_parts(api, some.items), some.total, capped=some.capped)
    last: list[LogPartDocument] = []
    missing, room = asked.tail, _MAX_TAIL_CHARACTERS
    async for parts in _backwards(api, asked, log):
        for part in parts:
            if min(missing, room) > 0:
                last.append(_cut(part, missing))
                missing -= part.contents.count("\n") or 1
                room -= len(part.contents)
        if min(missing, room) <= 0:
            break
    whole = Paging(number=1, size=max(1, len(last)))
    return _page(whole, last[::-1] if asked.oldest_first else last, len(last))


async def _backwards(api: Api, asked: _Asked, log: _Log) -> AsyncIterator[list[LogPartDocument]]:
    """Yield the parts of a log, the newest first, some at a time. Each read goes on from the oldest part of the last:
    only what is of the same time as that is passed over."""
    until, same, limit = None, 0, READ_BATCH
    read = partial(_found, api, asked, log, counted=False)
    while some := (await read(until=until, skip=same, limit=limit)).items:
        yield await counted_parts(api, some)
        oldest = some[-1].created_at
        same = same if oldest == until else 0
        same += sum(part.created_at == oldest for part in some)
        until, limit = oldest, fitting(some)


async def _found(api: Api, asked: _Asked, log: _Log, **part: Any) -> DocumentPage[LogPartDocument]:
    """Read one part of a log, in the user's turn."""
    async with AsyncExitStack() as turns:
        for each in (api.log_searches, api.log_reads) if asked.terms else (api.log_reads,):
            await turns.enter_async_context(each.turn(caller_id()))
        return await api.store.log_page(
            job_id=log.job_id, task_ids=log.task_ids, terms=asked.terms, since=asked.since, **part
        )


def _cut(part: LogPartDocument, lines: int) -> LogPartDocument:
    """Return a part without what stands before its last `lines` lines."""
    kept = part.contents.removesuffix("\n").rsplit("\n", lines)
    if len(kept) <= lines:
        return part
    end = "\n" if part.contents.endswith("\n") else ""
    return msgspec.structs.replace(part, contents="\n".join(kept[1:]) + end)


async def _counted_run(api: Api, task: TaskDocument, page: Paging, asked: _Asked) -> web.Response:
    where: dict[str, Any] = {"task_id": task.id, "run": task.run}
    if asked.since is not None:
        where["created_at"] = Above(asked.since - 1)
    order = "number" if asked.oldest_first else "-number"
    parts = await api.store.find(LogPartDocument, where, (order,), limit=page.size, skip=page.skip)
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
    form = request.query.get("format") or "text"
    if form not in _FORMS:
        raise HttpError(400, f"format: must be one of {', '.join(_FORMS)}")
    follower = Follower(api, job, task, cursor, whole_parts=form == PARTS)
    stream = EventStream(request)
    async with stream:
        if stream.wanted:
            await _send(follower, stream, _FORMS[form])
        if stream.wanted and not api.closing.is_set():
            await stream.send(f'{{"state":"{follower.state or "DELETED"}"}}', event="end")
    return stream.response


def _as_part(line: FollowedLine) -> str:
    """Return what was read as a log part of its own, in JSON."""
    view = msgspec.structs.replace(log_part_view(line.part), contents=line.text)
    return msgspec.json.encode(view).decode()


PARTS: Final = "parts"
_FORMS: Final[dict[str, Callable[[FollowedLine], str]]] = {
    "text": lambda line: line.text.rstrip("\r\n"),
    "json": _as_part,
    PARTS: _as_part,
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
            await api.slices.next()
    await response.write_eof()
    return response


def _file_name(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())[:64] or "job"


_PARAMS: Final = (
    *page_params(1000, "Parts", SIZE),
    Param("q", "Words that each part must contain, at most 16."),
    Param(
        "order",
        "`asc`: the oldest part first; `desc`: the newest.",
        default="desc",
        choices=("asc", "desc"),
    ),
    Param("tail", "Only the last so many lines, on one page.", int),
    Param("since", "Only parts that came later: a time, or a duration back from now (`10m`)."),
)
_LAST: Final = (
    Param(
        "format",
        "text: each event is a line; json: each event is a log part with one line; "
        "parts: each event is a log part with all its lines.",
        default="text",
        choices=tuple(_FORMS),
    ),
    Param("Last-Event-ID", "Resume after this event.", place="header"),
)
_EVENTS: Final = Media(
    "text/event-stream",
    "An event for each line, with an id to resume from; then `end` when the log is complete.",
)
_AMBIGUOUS: Final = {409: "The id is shortened, and more than one begins so."}
_NO_JOB: Final = {404: "The job does not exist.", **_AMBIGUOUS}
_NO_TASK: Final = {404: "The task does not exist.", **_AMBIGUOUS}

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
