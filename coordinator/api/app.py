"""Builds the aiohttp application from the routes and the middleware, and serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.typedefs import Middleware as AioMiddleware
from prometheus_client import CollectorRegistry

from coordinator.api.addresses import own_names_only
from coordinator.api.api_docs import DOCS_ROUTES, OPENAPI
from coordinator.api.audit import ACTIONS, AUDIT, AUDIT_ROUTES, AuditLog, audited
from coordinator.api.auth import IDENTITIES, Identities, auth
from coordinator.api.context import API, Api, caller_id
from coordinator.api.events import EVENT_ROUTES, FEED, EventFeed
from coordinator.api.health import HEALTH_ROUTES
from coordinator.api.http import Route, add_routes, error_response
from coordinator.api.jobs import JOB_ROUTES
from coordinator.api.logs import LOG_ROUTES
from coordinator.api.metrics import METERS, METRICS_ROUTES, CoordinatorMeters
from coordinator.api.middleware import (
    Handle,
    access_log,
    compressed,
    cors,
    errors,
    harden,
    metered,
    note_begun,
    rate_limit,
    request_limits,
    tagged,
    traced,
    with_json_errors,
)
from coordinator.api.nodes import NODE_ROUTES
from coordinator.api.openapi import openapi
from coordinator.api.port import Commands
from coordinator.api.queues import QUEUE_ROUTES
from coordinator.api.scheduled_jobs import SCHEDULE_ROUTES
from coordinator.api.tasks import TASK_ROUTES
from coordinator.api.tokens import TOKEN_ROUTES
from coordinator.api.users import USER_ROUTES, prepare_users
from coordinator.store.port import Store
from coordinator.turns import of_requests
from shared.broker.port import Broker
from shared.config.schema import ApiSwitches, Config
from shared.http_server import IDLE_TIME, BoundedConnection, BoundedRunner, BoundedServer

log = structlog.get_logger(__name__)

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
        super().__init__(with_json_errors(handle), **settings)


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


ALL_ROUTES: Final[tuple[Route, ...]] = (
    *HEALTH_ROUTES,
    *JOB_ROUTES,
    *TASK_ROUTES,
    *LOG_ROUTES,
    *EVENT_ROUTES,
    *NODE_ROUTES,
    *QUEUE_ROUTES,
    *METRICS_ROUTES,
    *SCHEDULE_ROUTES,
    *USER_ROUTES,
    *TOKEN_ROUTES,
    *AUDIT_ROUTES,
    *DOCS_ROUTES,
)
"""All endpoints, whatever is switched on."""


def create_app(
    store: Store,
    broker: Broker,
    commands: Commands,
    config: Config,
    version: str,
    registry: CollectorRegistry | None = None,
    more_routes: Sequence[Route] = (),
    more_middlewares: Sequence[AioMiddleware] = (),
) -> web.Application:
    """Return the API as an application, to be served by `coordinator.api.app.ApiRunner`.

    `registry`: where the figures for Prometheus are kept, with others of the process's own. `more_routes` and
    `more_middlewares` are those of extensions.
    """
    app = web.Application()
    audit = AuditLog(store, config.encryption.key)
    app[AUDIT] = audit
    app[API] = Api(of_requests(store, caller_id), broker, commands, config, version, audit)
    app[FEED] = EventFeed(app[API])
    app[METERS] = CoordinatorMeters(registry or CollectorRegistry())
    app[IDENTITIES] = Identities(config.coordinator.middleware)
    routes = [*served(config.coordinator.api), *more_routes]
    # Made when it is first asked for: it takes as long as all the rest of a start.
    document = partial(openapi, routes, version, config.coordinator.middleware)
    app[OPENAPI] = cast("Callable[[], dict[str, Any]]", cache(document))
    app[ACTIONS] = [route.handler.__name__ for route in routes if route.method != "GET"]
    add_routes(app, routes)
    app.middlewares.extend([*_middlewares(app, config), *more_middlewares, tagged])
    app.on_response_prepare.extend([note_begun, harden])
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
    app.on_cleanup.append(_close)
    return app


def served(switches: ApiSwitches) -> Sequence[Route]:
    """Return the endpoints that are switched on."""
    return [route for route in ALL_ROUTES if not route.group or getattr(switches, route.group)]


def _middlewares(app: web.Application, config: Config) -> list[AioMiddleware]:
    """Return what requests pass through, from the outside in."""
    settings = config.coordinator.middleware
    found: list[AioMiddleware] = []
    if config.telemetry.enabled:
        found.append(traced)
    if settings.request_log.enabled:
        found.append(access_log(settings.request_log.skip))
    found += [metered(app[METERS].registry), compressed, errors, own_names_only(config)]
    if settings.cors.enabled:
        found.append(cors(settings.cors, app))
    if settings.rate_limit.enabled:
        found.append(rate_limit(settings.rate_limit.rate, settings.rate_limit.burst))
    if app[IDENTITIES].asked_for:
        found.append(auth(app[IDENTITIES]))
    found += [request_limits, audited]
    return found


async def _start(app: web.Application) -> None:
    await prepare_users(app[API], app[IDENTITIES].passwords)
    app[AUDIT].start()


async def _close(app: web.Application) -> None:
    await app[AUDIT].close()


async def _stop(app: web.Application) -> None:
    app[API].closing.set()
    app[FEED].wake()
