"""The access log: one line for each request that is not skipped."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Sequence
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware

from coordinator.api.context import caller
from coordinator.api.routes import RouteHandler, route_of
from shared.tracing import span

log = structlog.get_logger(__name__)


def access_log(skip: Sequence[str]) -> AioMiddleware:
    """Return the middleware. `skip`: `METHOD /path`, where `*` stands for any run of characters."""
    skipped = re.compile("|".join(fnmatch.translate(pattern) for pattern in skip) or r"(?!)")

    @web.middleware
    async def logged(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        started = time.monotonic()
        status = 0
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            if not skipped.match(f"{request.method} {request.path}"):
                _write(request, status, time.monotonic() - started)

    return logged


def _write(request: web.Request, status: int, seconds: float) -> None:
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=status or "aborted",
        seconds=round(seconds, 4),
        client=request.remote,
        user=caller().actor.username,
    )


SERVER_FAULT: Final = 500
"""From this status on an answer says that the server failed (RFC 9110, 15.6)."""


@web.middleware
async def traced(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    """Trace a request, by the names of OpenTelemetry's conventions for HTTP."""
    route = route_of(request)
    path = route.path if route is not None else "other"
    attributes = {
        "http.request.method": request.method,
        "http.route": path,
        "url.path": request.path,
        "client.address": request.remote or "",
    }
    with span(f"{request.method} {path}", attributes) as here:
        response = await handler(request)
        here.set("http.response.status_code", response.status)
        if response.status >= SERVER_FAULT:
            here.fail(f"answered {response.status}")
        return response
