"""Serving the API over HTTP: time limits, and JSON also for what never becomes a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from coordinator.api.middleware.errors import http_error
from coordinator.api.responses import error_response
from shared.http_server import IDLE_TIME, BoundedConnection, BoundedRunner, BoundedServer

log = structlog.get_logger(__name__)

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_LINGER: Final = 1.0
"""Seconds in which the rest of a refused body is read, so that the client sees the answer."""
_STOP: Final = 10.0
"""Seconds that requests have to end when the server stops."""


class _Connection(BoundedConnection):
    """A connection whose errors are JSON."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client's bytes
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun") from exc
        if status >= 500:
            log.error("a request failed", exc_info=exc)
            text = "internal error; the coordinator's log has more"
        elif isinstance(exc, ContentEncodingError):
            status, text = 415, "Content-Encoding: only gzip and deflate are supported"
        else:
            text = "this is not a proper HTTP request"
        response = error_response(status, text)
        response.force_close()
        return response


class _Server(BoundedServer):
    """A server of such connections, that answers in JSON also what aiohttp refuses before any middleware (an unknown
    `Expect`)."""

    connection_type = _Connection

    def __init__(self, handle: Handle, **settings: Any) -> None:
        super().__init__(_as_json(handle), **settings)


class ApiRunner(BoundedRunner):
    """Serves an application of `create_app`; used as aiohttp's own runner is."""

    server_type = _Server

    def __init__(self, app: web.Application, *, shutdown_timeout: float = _STOP) -> None:
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=IDLE_TIME,
            lingering_time=_LINGER,
            shutdown_timeout=shutdown_timeout,
        )


def _as_json(handle: Handle) -> Handle:
    async def handled(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            return http_error(request, error)

    return handled
