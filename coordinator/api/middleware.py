"""What every request passes through: its log line, metrics, limits of time and size, headers, CORS, errors as JSON."""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware
from cachetools import LRUCache
from prometheus_client import CollectorRegistry, Counter, Histogram

from coordinator.api.addresses import client_address, client_network
from coordinator.api.context import api_of, caller
from coordinator.api.http import (
    HttpError,
    RouteHandler,
    error_response,
    route_of,
    takes_gzip,
    too_large,
)
from shared.config.schema import Cors
from shared.errors import (
    ApplicationError,
    BrokerUnavailable,
    Conflict,
    Forbidden,
    NotAllowed,
    NotFound,
    StoreUnavailable,
    Unreadable,
    WrongKey,
)
from shared.model.problems import InvalidDocument
from shared.telemetry import known_trace, span

log = structlog.get_logger(__name__)

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_begun: Final[ContextVar[bool]] = ContextVar("begun", default=False)
"""Each request is served by an asyncio task of its own, which this belongs to."""

_STATUS: Final[dict[type[ApplicationError], int]] = {
    NotAllowed: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    StoreUnavailable: 503,
    BrokerUnavailable: 503,
    WrongKey: 500,
    Unreadable: 500,
}
_WHO: Final[dict[type[ApplicationError], str]] = {
    StoreUnavailable: "the datastore does not answer: ",
    BrokerUnavailable: "the broker does not answer: ",
}


@web.middleware
async def errors(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    """Turn whatever a handler raises into a JSON error; cut off an answer that had begun."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _http_error(request, error)
    except Exception as error:
        if _begun.get():
            raise _cut_off(request, error) from error
        return _refused(request, error)


def with_json_errors(handle: Handle) -> Handle:
    """Return a server's `handle` that also answers in JSON what aiohttp refuses before any middleware."""

    async def handled(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            return _http_error(request, error)

    return handled


async def note_begun(_request: web.Request, _response: web.StreamResponse) -> None:
    """Note that an answer begins: from then on an error can't be another answer."""
    _begun.set(True)


def _cut_off(request: web.Request, error: Exception) -> ConnectionError:
    reader_left = isinstance(error, ConnectionError)
    note = log.debug if reader_left else log.warning
    note("a response was interrupted", method=request.method, path=request.path, reason=str(error))
    if request.transport is not None:
        request.transport.abort()
    return ConnectionResetError("the answer had begun")


def _refused(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, HttpError):
        return error_response(error.status, error.message, headers=error.headers)
    if isinstance(error, InvalidDocument):
        return error_response(400, str(error), problems=error.problems)
    if isinstance(error, TimeoutError):
        return error_response(503, "it took too long; try again later")
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            headers = {"Retry-After": "5"} if status == 503 else None
            return error_response(status, _WHO.get(kind, "") + str(error), headers=headers)
    log.error("a request failed", method=request.method, path=request.path, exc_info=error)
    return error_response(500, "internal error; the coordinator's log has more")


def status_of(error: BaseException) -> int:
    """Return the status that an error is answered with."""
    if isinstance(error, HttpError):
        return error.status
    if isinstance(error, web.HTTPException):
        return error.status
    if isinstance(error, InvalidDocument):
        return 400
    if isinstance(error, TimeoutError):
        return 503
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def _http_error(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
    """Return an error of aiohttp's own as JSON."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return error_response(error.status, _message(request, error), headers=headers)


def _message(request: web.BaseRequest, error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return f"{request.method} is not allowed here; allowed: {allowed}"
    if error.status == 404:
        return "there is no such path"
    return error.reason


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


@web.middleware
async def tagged(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    """Give what is read as JSON an `ETag`; 304 without it where the client has it already."""
    response = await handler(request)
    if request.method not in ("GET", "HEAD") or not isinstance(response, web.Response):
        return response
    if not isinstance(response.body, bytes) or not _is_untagged_json(response):
        return response
    tag = hashlib.blake2s(response.body, digest_size=12).hexdigest()
    response.headers["ETag"] = f'"{tag}"'
    if any(each.value in (tag, "*") for each in request.if_none_match or ()):
        response.set_status(304)
        response.body = None
    return response


def _is_untagged_json(response: web.Response) -> bool:
    found = (response.status, response.content_type)
    return found == (200, "application/json") and "ETag" not in response.headers


_WORTH_IT: Final = 1024
"""From this size in bytes on an answer is compressed."""


@web.middleware
async def compressed(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    """Compress a large answer where the client takes it. Its entity tag is weak then: the bytes are others."""
    response = await handler(request)
    if not isinstance(response, web.Response) or "Content-Encoding" in response.headers:
        return response
    if not isinstance(response.body, bytes) or len(response.body) <= _WORTH_IT:
        return response
    response.headers.add("Vary", "Accept-Encoding")
    if takes_gzip(request):
        response.enable_compression(web.ContentCoding.gzip)
        if "ETag" in response.headers:
            response.headers["ETag"] = "W/" + response.headers["ETag"]
    return response


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
        route = route_of(request)
        if route is not None and route.path.startswith("/health"):
            return await handler(request)
        wait = buckets.take(client_network(request))
        if wait:
            seconds = str(max(1, math.ceil(wait)))
            raise HttpError(429, "too many requests; try again later", {"Retry-After": seconds})
        return await handler(request)

    return limited


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
        client=client_address(request),
        user=caller().actor.username,
    )


def metered(registry: CollectorRegistry) -> AioMiddleware:
    """Return the middleware that counts requests in `registry`, by endpoint rather than path."""
    requests = Counter(
        "haulier_http_requests",
        "Requests answered",
        ("method", "path", "status"),
        registry=registry,
    )
    seconds = Histogram(
        "haulier_http_request_seconds",
        "Time to answer a request",
        ("method", "path"),
        registry=registry,
    )

    @web.middleware
    async def counted(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        started = time.monotonic()
        response = await handler(request)
        route = route_of(request)
        path = route.path if route is not None else "other"
        method = route.method if route is not None else "other"
        requests.labels(method, path, str(response.status)).inc()
        if route is not None and not route.endless:
            seconds.labels(method, path).observe(time.monotonic() - started)
        return response

    return counted


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
        "client.address": client_address(request),
    }
    parent = known_trace(request.headers.get("traceparent", ""))
    with span(f"{request.method} {path}", attributes, parent=parent) as here:
        response = await handler(request)
        here.set("http.response.status_code", response.status)
        if response.status >= SERVER_FAULT:
            here.fail(f"answered {response.status}")
        return response


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
