"""Endpoints for nodes: list, drain, resume."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.context import Api, api_of
from coordinator.api.http import OK, Route, StatusView, answer, path_id
from coordinator.api.roles import OPERATOR
from shared.model.documents import MICROS_PER_SECOND, NodeDocument
from shared.model.queries import Above
from shared.model.views import NodeView, node_view

HEARD_OF: Final = 5 * 60
"""Seconds after which a node that was not heard of is no longer listed."""


async def present_nodes(api: Api) -> list[NodeView]:
    """Return the nodes that were heard of lately, the oldest first."""
    now = api.store.now()
    nodes = await api.store.find(
        NodeDocument,
        {"last_heartbeat_at": Above(now - HEARD_OF * MICROS_PER_SECOND)},
        order=("started_at",),
    )
    return [node_view(node, now, api.config.engine.beat) for node in nodes]


async def list_nodes(request: web.Request) -> web.StreamResponse:
    """Answer the nodes that were heard of within 5 minutes."""
    return answer(await present_nodes(api_of(request)))


async def drain_node(request: web.Request) -> web.StreamResponse:
    """Stop a worker from taking new tasks."""
    await api_of(request).commands.drain(path_id(request), on=True)
    return answer(OK)


async def resume_node(request: web.Request) -> web.StreamResponse:
    """Let a worker take tasks again."""
    await api_of(request).commands.drain(path_id(request), on=False)
    return answer(OK)


_ERRORS: Final = {
    400: "The node is a coordinator.",
    404: "The node does not exist.",
}

NODE_ROUTES: Final = (
    Route(
        method="GET",
        path="/nodes",
        handler=list_nodes,
        group="nodes",
        summary="List the nodes that were active in the last 5 minutes",
        answer=list[NodeView],
    ),
    Route(
        method="PUT",
        path="/nodes/{id}/drain",
        handler=drain_node,
        group="nodes",
        summary="Stop a worker from taking new tasks",
        answer=StatusView,
        errors=_ERRORS,
        role=OPERATOR,
    ),
    Route(
        method="PUT",
        path="/nodes/{id}/resume",
        handler=resume_node,
        group="nodes",
        summary="Let a drained worker take tasks again",
        answer=StatusView,
        errors=_ERRORS,
        role=OPERATOR,
    ),
)
