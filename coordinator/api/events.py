"""State changes of jobs and tasks as they happen."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

import msgspec
from aiohttp import web

from coordinator.api.access import may_see
from coordinator.api.context import Api, api_of, caller
from coordinator.api.listening import listening
from coordinator.api.routes import Media, Param, Route
from coordinator.api.sse import EventStream
from coordinator.store.port import Viewer
from shared.errors import StoreUnavailable
from shared.model.documents import Job
from shared.model.messages import StateChanged
from shared.model.views import rfc3339

_REMEMBERED: Final = 1000
_WAITING: Final = 1000
"""Events kept for a reader that is slow; past that it loses the oldest."""
_LOOK: Final = 1.0
_encoder: Final = msgspec.json.Encoder()


class Eyes:
    """Which jobs somebody may see; remembers the latest ones."""

    def __init__(self, api: Api, viewer: Viewer | None) -> None:
        self._api = api
        self._viewer = viewer
        self._seen: OrderedDict[str, bool] = OrderedDict()

    async def may_see(self, job_id: str) -> bool:
        """Tell whether the job may be seen; not, where that can't be found out."""
        if self._viewer is None:
            return True
        if job_id not in self._seen:
            self._seen[job_id] = await self._look(job_id)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return self._seen[job_id]

    async def _look(self, job_id: str) -> bool:
        try:
            job = await self._api.store.get(Job, job_id)
        except StoreUnavailable:
            return False
        return job is not None and may_see(job.permissions, self._viewer)


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
        event = waiting.popleft()
        if await eyes.may_see(event.job_id):
            await stream.send(event_json(event), event=event.type)
    await stream.idle()


ROUTES: Final = (
    Route(
        method="GET",
        path="/events",
        handler=stream_events,
        group="events",
        summary="Stream state changes of jobs and tasks",
        params=(
            Param("job", "Only those of this job."),
            Param("type", "Only these: job, task, job.StateChange, task.StateChange, …"),
        ),
        answer=Media("text/event-stream", "An event for each change, with the summary as JSON."),
        endless=True,
    ),
)
