"""Serving the API over HTTP: time limits, and JSON also for what never becomes a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_protocol import RequestHandler

from coordinator.api.middleware.errors import http_error
from coordinator.api.responses import error_response

log = structlog.get_logger(__name__)

HEADER_TIME: Final = 30.0
"""Seconds in which a connection must bring the headers of its next request."""
_LINGER: Final = 1.0
"""Seconds in which the rest of a refused body is read, so that the client sees the answer."""
_STOP: Final = 10.0
"""Seconds that requests have to end when the server stops."""


class _Connection(RequestHandler):
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


class _Server(web.Server):
    """A server of such connections."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class ApiRunner(web.AppRunner):
    """Serves an application of `create_app`; used as aiohttp's own runner is."""

    def __init__(self, app: web.Application, *, shutdown_timeout: float = _STOP) -> None:
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=HEADER_TIME,
            lingering_time=_LINGER,
            shutdown_timeout=shutdown_timeout,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            _as_json(made.request_handler),
            request_factory=made.request_factory,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no other way to its own connections
            **made._kwargs,  # noqa: SLF001 - the same
        )


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _as_json(handle: Handle) -> Handle:
    """Answer in JSON also what aiohttp refuses before any middleware (an unknown `Expect`)."""

    async def handled(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            return http_error(request, error)

    return handled
