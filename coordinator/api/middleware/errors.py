"""Turns every error into JSON: ours, aiohttp's, and unexpected ones, which are logged but not shown."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import structlog
from aiohttp import web

from coordinator.api.responses import HttpError, error_response
from coordinator.api.routes import RouteHandler
from shared.errors import (
    ApplicationError,
    BrokerUnavailable,
    Conflict,
    Forbidden,
    NotAllowed,
    NotFound,
    StoreUnavailable,
)
from shared.model.problems import InvalidDocument

log = structlog.get_logger(__name__)

_begun: Final[ContextVar[bool]] = ContextVar("begun", default=False)
"""Each request is served by an asyncio task of its own, which this belongs to."""

_STATUS: Final[dict[type[ApplicationError], int]] = {
    NotAllowed: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    StoreUnavailable: 503,
    BrokerUnavailable: 503,
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
        return http_error(request, error)
    except Exception as error:
        if _begun.get():
            raise _cut_off(request, error) from error
        return _refused(request, error)


async def note_begun(_request: web.Request, _response: web.StreamResponse) -> None:
    """Note that an answer begins: from then on an error can't be another answer."""
    _begun.set(True)


def _cut_off(request: web.Request, error: Exception) -> ConnectionError:
    log.warning(
        "a response was interrupted", method=request.method, path=request.path, reason=str(error)
    )
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


def http_error(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
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
