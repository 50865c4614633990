"""Endpoints for queues: list, get, delete; and for the messages in `dead`: list, send again, discard."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.http import OK, Param, Route, StatusView, answer, flag, path_id
from coordinator.api.roles import OPERATOR
from coordinator.dead_letters import LOOKED_AT, DeadLetter
from coordinator.queue_stats import QueueDemand, all_queues, one_queue, queue_scale, waiting_in
from shared.broker.port import QueueInfo
from shared.errors import NotAllowed, NotFound
from shared.model.queues import NODE_QUEUE_PREFIX, is_task_queue


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


async def get_queue_scale(request: web.Request) -> web.StreamResponse:
    """Answer how many slots a task queue has use for."""
    api = api_of(request)
    scale = await queue_scale(api.store, api.broker, path_id(request, "name"))
    if scale is None:
        raise NotFound("queue not found")
    return answer(scale)


async def delete_queue(request: web.Request) -> web.StreamResponse:
    """Delete a task queue; one that stored tasks wait for only with `force`: the sweeper then sends them again."""
    api, name = api_of(request), path_id(request, "name")
    force = flag(request, "force")
    if name.startswith(NODE_QUEUE_PREFIX):
        raise NotAllowed(f"{name} is a node's own queue and can not be deleted")
    if not is_task_queue(name):
        raise NotAllowed(f"{name} is a coordinator queue and can not be deleted")
    waiting = await waiting_in(api.store, name)
    if waiting and not force:
        raise NotAllowed(
            f"{waiting} {'task waits' if waiting == 1 else 'tasks wait'} in this queue; with force=true it is deleted, "
            "and they are sent again when a worker takes from it"
        )
    if not await api.broker.delete_queue(name):
        raise NotFound("queue not found")
    return answer(OK)


async def list_dead_letters(request: web.Request) -> web.StreamResponse:
    """Answer the oldest messages that nobody could handle."""
    return answer(await api_of(request).dead_letters.all())


async def resend_dead_letter(request: web.Request) -> web.StreamResponse:
    """Send a message again to the queue that it was taken from."""
    if not await api_of(request).dead_letters.resend(path_id(request, "id")):
        raise NotFound("message not found")
    return answer(OK)


async def discard_dead_letter(request: web.Request) -> web.StreamResponse:
    """Remove a message from `dead`."""
    if not await api_of(request).dead_letters.discard(path_id(request, "id")):
        raise NotFound("message not found")
    return answer(OK)


_NO_LETTER: Final = (
    f"There is no such message among the {LOOKED_AT} oldest, or another coordinator looks at them."
)

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
        method="GET",
        path="/queues/{name}/scale",
        handler=get_queue_scale,
        group="queues",
        summary="Get how many slots a task queue has use for, for autoscalers",
        answer=QueueDemand,
        errors={404: "There is no such task queue.", 503: "The broker is unavailable."},
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
        role=OPERATOR,
    ),
    Route(
        method="GET",
        path="/queues/dead/messages",
        handler=list_dead_letters,
        group="queues",
        summary=f"List the messages that nobody could handle, and why: the {LOOKED_AT} oldest",
        answer=list[DeadLetter],
        errors={503: "The broker is unavailable."},
        role=OPERATOR,
    ),
    Route(
        method="POST",
        path="/queues/dead/messages/{id}/resend",
        handler=resend_dead_letter,
        group="queues",
        summary="Send a message again to the queue that it was taken from",
        answer=StatusView,
        errors={
            400: "The message does not say where it was taken from, or that was a node's own queue.",
            404: _NO_LETTER,
            503: "The broker is unavailable.",
        },
        role=OPERATOR,
    ),
    Route(
        method="DELETE",
        path="/queues/dead/messages/{id}",
        handler=discard_dead_letter,
        group="queues",
        summary="Discard a message that nobody could handle",
        answer=StatusView,
        errors={404: _NO_LETTER, 503: "The broker is unavailable."},
        role=OPERATOR,
    ),
)
