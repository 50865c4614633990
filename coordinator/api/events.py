"""`GET /events`: streams state changes of jobs and tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final

import msgspec
from aiohttp import web
from cachetools import TTLCache

from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import Media, Param, Route
from coordinator.api.sharing import SharedReads
from coordinator.api.sse import EventStream
from coordinator.api.view_data import redactor
from coordinator.api.visibility import may_see, visible_job
from coordinator.store.port import Viewer
from shared.errors import StoreUnavailable
from shared.model import language
from shared.model.documents import JobDocument
from shared.model.messages import StateChanged
from shared.model.views import rfc3339
from shared.redaction import Redactor

_REMEMBERED: Final = 1000
_REMEMBERED_FOR: Final = 60.0
"""Seconds for which it is remembered of so many jobs who may see them."""
KEPT_EVENTS: Final = 1000
KEPT_BYTES: Final = 16 * 1024 * 1024
"""Events, and bytes of them, that readers may be behind, all of them together."""
_LOOK: Final = 1.0
_encoder: Final = msgspec.json.Encoder()


_FREE: Final = ("name", "description", "tags", "inputs", "result", "error")
"""What of a summary is free text, and may hold a secret of a job above the one it tells of."""


class Sight(msgspec.Struct, frozen=True):
    """Who may see a job's events, and what must be redacted in them. `there`: whether there is such a job."""

    there: bool
    permissions: Sequence[language.Permission] = ()
    redactor: Redactor | None = None

    def seen_by(self, viewer: Viewer | None) -> bool:
        """Tell whether they may be seen with these eyes."""
        return may_see(self.permissions, viewer) if self.there else viewer is None


class _Kept(msgspec.Struct):
    """An event that readers may still want. `text`: as it is sent, once somebody has asked for it."""

    event: StateChanged
    size: int
    text: str | None = None


class EventFeed:
    """The latest events, kept once for all readers. `end`: the number of the next one."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._kept: deque[_Kept] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._sights = SharedReads(TTLCache(_REMEMBERED, _REMEMBERED_FOR))
        self._readers = 0
        self._listening: AsyncExitStack
        self.end = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[int]:
        """Keep events while the block runs; gives the number of the first."""
        self._readers += 1
        if self._readers == 1:
            self._listening = AsyncExitStack()
            await self._listening.enter_async_context(self._api.listeners.listening(self.hear))
        try:
            yield self.end
        finally:
            self._readers -= 1
            if not self._readers:
                await self._listening.aclose()

    def hear(self, event: StateChanged) -> None:
        """Keep an event, in the place of the oldest where there are too many."""
        size = len(_encoder.encode(event))
        self._kept.append(_Kept(event, size))
        self._size += size
        self.end += 1
        while len(self._kept) > KEPT_EVENTS or self._size > KEPT_BYTES:
            self._size -= self._kept.popleft().size
        self.wake()

    def wake(self) -> None:
        """Have all readers look, also whether the server stops."""
        self._news.set()
        self._news = asyncio.Event()

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return self.end - len(self._kept)

    def event(self, number: int) -> _Kept:
        """Return an event that is kept."""
        return self._kept[number - self.first]

    async def news(self) -> None:
        """Wait for an event, for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await self._news.wait()

    async def text(self, kept: _Kept, viewer: Viewer | None) -> str | None:
        """Return an event as it is sent; None where this viewer may not see it, or that can't be found out."""
        id = kept.event.job_id
        try:
            sight = await self._sights.read(id, partial(self._look, id))
        except StoreUnavailable:
            return None
        if not sight.seen_by(viewer):
            return None
        if kept.text is None:
            event = kept.event
            kept.text = event_json(_redacted(event, sight.redactor) if sight.redactor else event)
        return kept.text

    async def _look(self, job_id: str) -> Sight:
        job = await self._api.store.get(JobDocument, job_id)
        if job is None or job.deleted_at is not None:
            return Sight(there=False)
        return Sight(True, job.permissions, await redactor(self._api, job))


def _redacted(event: StateChanged, redactor: Redactor) -> StateChanged:
    free = {name: event.summary[name] for name in _FREE if name in event.summary}
    return msgspec.structs.replace(event, summary={**event.summary, **redactor.redact_value(free)})


def event_json(event: StateChanged) -> str:
    """Return an event as it is sent: the summary, and what happened."""
    shown = {
        **event.summary,
        "type": event.type,
        "jobId": event.job_id,
        "state": event.state,
        "at": rfc3339(event.at),
    }
    if event.task_id:
        shown["taskId"] = event.task_id
    return _encoder.encode(shown).decode()


def _types(request: web.Request) -> tuple[str, ...]:
    given = ",".join(request.query.getall("type", []))
    return tuple(part.strip().lower() for part in given.split(",") if part.strip())


def wanted(event: StateChanged, job: str | None, types: tuple[str, ...]) -> bool:
    """Tell whether an event passes the filters. `types`: whole, or what stands before the dot."""
    if job and event.job_id != job:
        return False
    kind = event.type.lower()
    return not types or kind in types or kind.partition(".")[0] in types


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Stream what happens from now on."""
    api, feed = api_of(request), request.app[FEED]
    await api.store.ping()
    asked, types = request.query.get("job"), _types(request)
    job = (await visible_job(request, asked)).id if asked else None
    stream = EventStream(request)
    async with feed.read() as first, stream:
        at = first
        while stream.wanted and not api.closing.is_set():
            if at == feed.end:
                await feed.news()
            if at < feed.first:
                await stream.send(f'{{"missed":{feed.first - at}}}', event="missed")
                at = feed.first
            while feed.first <= at < feed.end:
                kept, at = feed.event(at), at + 1
                if wanted(kept.event, job, types):
                    text = await feed.text(kept, caller().viewer)
                    await stream.gather(text, event=kept.event.type) if text else None
            await stream.flush()
            await stream.idle()
    return stream.response


FEED: Final = web.AppKey("FEED", EventFeed)

EVENT_ROUTES: Final = (
    Route(
        method="GET",
        path="/events",
        handler=stream_events,
        group="events",
        summary="Stream state changes of jobs and tasks",
        params=(
            Param("job", "Only events of this job."),
            Param(
                "type", "Only events of this type: job, task, job.StateChange, task.StateChange, …"
            ),
        ),
        answer=Media(
            "text/event-stream",
            "An event for each change, with the summary as JSON; `missed` where the reader was too "
            "slow for some, with their number.",
        ),
        errors={
            404: "The job does not exist.",
            409: "The id is shortened, and more than one begins so.",
        },
        endless=True,
    ),
)
