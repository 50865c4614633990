"""`GET /events`: streams state changes of jobs and tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec
from aiohttp import web
from cachetools import LRUCache

from coordinator.api.context import Api, api_of, caller
from coordinator.api.routes import Media, Param, Route
from coordinator.api.sse import EventStream, listening
from coordinator.api.view_data import redactor
from coordinator.api.visibility import may_see
from coordinator.store.port import Viewer
from shared.errors import StoreUnavailable
from shared.model.documents import JobDocument
from shared.model.messages import StateChanged
from shared.model.views import rfc3339
from shared.redaction import Redactor

_REMEMBERED: Final = 1000
_WAITING: Final = 1000
"""Events kept for a reader that is slow; past that it loses the oldest."""
_LOOK: Final = 1.0
_encoder: Final = msgspec.json.Encoder()


_FREE: Final = ("name", "description", "tags", "inputs", "result", "error")
"""What of a summary is free text, and may hold a secret of a job above the one it tells of."""


class Sight(msgspec.Struct, frozen=True):
    """Whether a caller can see a job's events, and what must be redacted in them."""

    visible: bool
    redactor: Redactor | None = None


class Eyes:
    """Checks which jobs a caller can see, with a cache of recent ones."""

    def __init__(self, api: Api, viewer: Viewer | None) -> None:
        self._api = api
        self._viewer = viewer
        self._seen: LRUCache[str, Sight] = LRUCache(_REMEMBERED)

    async def see(self, event: StateChanged) -> StateChanged | None:
        """Return an event as it may be seen, or None; None too where that can't be found out."""
        sight = self._seen.get(event.job_id)
        if sight is None:
            try:
                sight = self._seen[event.job_id] = await self._look(event.job_id)
            except StoreUnavailable:
                return None
        if not sight.visible:
            return None
        return event if sight.redactor is None else _redacted(event, sight.redactor)

    async def _look(self, job_id: str) -> Sight:
        job = await self._api.store.get(JobDocument, job_id)
        if job is None or job.deleted_at is not None:
            return Sight(visible=self._viewer is None)
        if not may_see(job.permissions, self._viewer):
            return Sight(visible=False)
        return Sight(visible=True, redactor=await redactor(self._api, job))


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
    api = api_of(request)
    await api.store.ping()
    job, types = request.query.get("job"), _types(request)
    waiting: deque[StateChanged] = deque(maxlen=_WAITING)
    heard = asyncio.Event()

    def hear(event: StateChanged) -> None:
        if wanted(event, job, types):
            waiting.append(event)
            heard.set()

    eyes = Eyes(api, caller().viewer)
    stream = EventStream(request)
    async with listening(api, hear) as listener, stream:
        while stream.wanted and not (listener.done() or api.closing.is_set()):
            await _heard(heard)
            await _send(waiting, stream, eyes)
    return stream.response


async def _heard(heard: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK):
            await heard.wait()
    except TimeoutError:
        return
    heard.clear()


async def _send(waiting: deque[StateChanged], stream: EventStream, eyes: Eyes) -> None:
    while waiting:
        event = await eyes.see(waiting.popleft())
        if event is not None:
            await stream.send(event_json(event), event=event.type)
    await stream.idle()


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
        answer=Media("text/event-stream", "An event for each change, with the summary as JSON."),
        endless=True,
    ),
)
