"""Bounds on what one request may cost: the size that it announces, the time that it takes."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.request_body import too_large
from coordinator.api.routes import Handler, route_of

ANSWER_TIME: Final = 60.0
"""Seconds that a request may take, unless its endpoint waits or streams."""


@web.middleware
async def limits(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a body that says it is too large before it is read, and end what takes too long."""
    limit = api_of(request).config.coordinator.middleware.body_limit
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    route = route_of(request)
    if route is not None and route.endless:
        return await handler(request)
    async with asyncio.timeout(ANSWER_TIME):
        return await handler(request)


_CACHEABLE: Final = ("text/html", "text/css", "text/javascript", "image/svg+xml")


async def harden(_request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers that keep browsers from guessing and from keeping data."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    if response.content_type not in _CACHEABLE:
        response.headers.setdefault("Cache-Control", "no-store")
