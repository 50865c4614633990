"""One span for each request, by endpoint rather than path."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from coordinator.api.routes import Handler, route_of
from shared.tracing import span

SERVER_FAULT: Final = 500
"""From this status on an answer says that the server failed (RFC 9110, 15.6)."""


@web.middleware
async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
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
