"""Limits on requests: their size, their time, and their rate for each client address."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware
from cachetools import LRUCache

from coordinator.api.context import api_of
from coordinator.api.requests import too_large
from coordinator.api.responses import HttpError
from coordinator.api.routes import RouteHandler, route_of

ANSWER_TIME: Final = 60.0
"""Seconds that a request may take, unless its endpoint waits or streams."""


@web.middleware
async def request_limits(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
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


MAX_ADDRESSES: Final = 10_000
"""Addresses remembered; of those not heard of for longest the next request counts as the first."""


class Buckets:
    """What each address may still ask for at once. `rate`: requests a second; `clock` in seconds."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(MAX_ADDRESSES)

    def take(self, address: str) -> float:
        """Take one request; return 0, or for how many seconds there is none to be had."""
        now = self._clock()
        left, since = self._left.get(address, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        self._left[address] = (left - 1 if allowed else left, now)
        return 0.0 if allowed else (1 - left) / self._rate


def rate_limit(rate: float, burst: int) -> AioMiddleware:
    """Return the middleware: 429 with `Retry-After` past the limit."""
    buckets = Buckets(rate, burst)

    @web.middleware
    async def limited(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        wait = buckets.take(request.remote or "")
        if wait:
            seconds = str(max(1, math.ceil(wait)))
            raise HttpError(429, "too many requests; try again later", {"Retry-After": seconds})
        return await handler(request)

    return limited
