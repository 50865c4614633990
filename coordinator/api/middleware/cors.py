"""Cross-origin requests from browsers (the Fetch standard, CORS)."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware

from coordinator.api.routes import RouteHandler
from shared.config.tree import Cors

_MAX_AGE: Final = "600"
"""Seconds that a browser may remember what is allowed."""
_EXPOSED: Final = "Retry-After, Content-Disposition"


def cors(settings: Cors, app: web.Application) -> AioMiddleware:
    """Return the middleware that answers preflights, and mark all other answers of `app`."""

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.add("Vary", "Origin")
        origin = _allowed_origin(settings, request)
        if origin is None:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        if settings.credentials:
            response.headers["Access-Control-Allow-Credentials"] = "true"

    app.on_response_prepare.append(mark)

    @web.middleware
    async def preflights(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight(settings, request)
        return await handler(request)

    return preflights


def _allowed_origin(settings: Cors, request: web.Request) -> str | None:
    origin = request.headers.get("Origin")
    if origin is None:
        return None
    if "*" in settings.origins:
        return None if settings.credentials else "*"
    return origin if origin in settings.origins else None


def _preflight(settings: Cors, request: web.Request) -> web.Response:
    response = web.Response(status=204)
    if _allowed_origin(settings, request) is not None:
        response.headers["Access-Control-Allow-Methods"] = ", ".join(settings.methods)
        response.headers["Access-Control-Allow-Headers"] = ", ".join(settings.headers)
        response.headers["Access-Control-Max-Age"] = _MAX_AGE
    return response
