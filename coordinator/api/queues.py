"""Endpoints for queues: list, get, delete. The figures come from the broker."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.requests import path_id
from coordinator.api.responses import OK, StatusView, answer
from coordinator.api.routes import Route
from shared.broker.port import Broker, QueueInfo
from shared.errors import NotAllowed, NotFound
from shared.model.queues import NODE_QUEUE_PREFIX, RESERVED_QUEUES


async def _broker(request: web.Request) -> Broker:
    """Return the broker, once the datastore has answered: without it no endpoint does."""
    api = api_of(request)
    await api.store.ping()
    return api.broker


async def list_queues(request: web.Request) -> web.StreamResponse:
    """Answer all queues by name."""
    queues = await (await _broker(request)).queues()
    return answer(sorted(queues, key=lambda queue: queue.name))


async def get_queue(request: web.Request) -> web.StreamResponse:
    """Answer one queue."""
    queue = await (await _broker(request)).queue(path_id(request, "name"))
    if queue is None:
        raise NotFound("queue not found")
    return answer(queue)


async def delete_queue(request: web.Request) -> web.StreamResponse:
    """Delete a task queue and what is in it."""
    name = path_id(request, "name")
    if name in RESERVED_QUEUES:
        raise NotAllowed(f"{name} is a coordinator queue and can not be deleted")
    if name.startswith(NODE_QUEUE_PREFIX):
        raise NotAllowed(f"{name} is a node's own queue and can not be deleted")
    if not await (await _broker(request)).delete_queue(name):
        raise NotFound("queue not found")
    return answer(OK)


QUEUE_ROUTES: Final = (
    Route(
        method="GET",
        path="/queues",
        handler=list_queues,
        group="queues",
        summary="List the queues",
        answer=list[QueueInfo],
        errors={503: "The broker is unavailable."},
    ),
    Route(
        method="GET",
        path="/queues/{name}",
        handler=get_queue,
        group="queues",
        summary="Get a queue",
        answer=QueueInfo,
        errors={404: "The queue does not exist.", 503: "The broker is unavailable."},
    ),
    Route(
        method="DELETE",
        path="/queues/{name}",
        handler=delete_queue,
        group="queues",
        summary="Delete a task queue",
        answer=StatusView,
        errors={400: "The queue belongs to the engine.", 404: "The queue does not exist."},
    ),
)
