"""Endpoints for queues: list, get, delete."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.http import OK, StatusView, answer, flag, path_id
from coordinator.api.routes import Param, Route
from coordinator.queue_stats import all_queues, one_queue, waiting_in
from shared.broker.port import QueueInfo
from shared.errors import NotAllowed, NotFound
from shared.model.queues import NODE_QUEUE_PREFIX, RESERVED_QUEUES


async def list_queues(request: web.Request) -> web.StreamResponse:
    """Answer all queues by name."""
    api = api_of(request)
    return answer(await all_queues(api.store, api.broker))


async def get_queue(request: web.Request) -> web.StreamResponse:
    """Answer one queue."""
    api = api_of(request)
    queue = await one_queue(api.store, api.broker, path_id(request, "name"))
    if queue is None:
        raise NotFound("queue not found")
    return answer(queue)


async def delete_queue(request: web.Request) -> web.StreamResponse:
    """Delete a task queue; one that stored tasks wait for only with `force`: the sweeper then sends them again."""
    api, name = api_of(request), path_id(request, "name")
    force = flag(request, "force")
    if name in RESERVED_QUEUES:
        raise NotAllowed(f"{name} is a coordinator queue and can not be deleted")
    if name.startswith(NODE_QUEUE_PREFIX):
        raise NotAllowed(f"{name} is a node's own queue and can not be deleted")
    waiting = await waiting_in(api.store, name)
    if waiting and not force:
        raise NotAllowed(
            f"{waiting} {'task waits' if waiting == 1 else 'tasks wait'} in this queue; with force=true it is deleted, "
            "and they are sent again when a worker takes from it"
        )
    if not await api.broker.delete_queue(name):
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
        params=[
            Param(
                "force",
                "Delete it also while tasks wait in it: they are sent again when a worker takes from it.",
                bool,
                default=False,
            )
        ],
        errors={
            400: "The queue belongs to the engine, or tasks wait in it; the message says how many.",
            404: "The queue does not exist.",
        },
    ),
)
