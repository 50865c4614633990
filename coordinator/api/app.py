"""Builds the aiohttp application from the routes and the middleware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware
from prometheus_client import CollectorRegistry

from coordinator.api.api_docs import DOCS_ROUTES, OPENAPI
from coordinator.api.context import API, Api
from coordinator.api.events import EVENT_ROUTES
from coordinator.api.health import HEALTH_ROUTES
from coordinator.api.jobs import JOB_ROUTES
from coordinator.api.logs import LOG_ROUTES
from coordinator.api.metrics import METERS, METRICS_ROUTES, Meters
from coordinator.api.middleware.access_log import access_log, traced
from coordinator.api.middleware.auth import auth
from coordinator.api.middleware.cors import cors
from coordinator.api.middleware.errors import errors, note_begun
from coordinator.api.middleware.limits import harden, rate_limit, request_limits
from coordinator.api.nodes import NODE_ROUTES
from coordinator.api.openapi import openapi
from coordinator.api.port import Commands
from coordinator.api.queues import QUEUE_ROUTES
from coordinator.api.routes import Route, add_routes
from coordinator.api.scheduled_jobs import SCHEDULE_ROUTES
from coordinator.api.tasks import TASK_ROUTES
from coordinator.api.users import USER_ROUTES, make_first_user
from coordinator.store.port import Store
from shared.broker.port import Broker
from shared.config.tree import ApiSwitches, Config

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
) -> web.Application:
    """Return the API as an application, to be served by `coordinator.api.server.ApiRunner`.

    `registry`: where the figures for Prometheus are kept, with others of the process's own.
    """
    app = web.Application()
    app[API] = Api(store, broker, commands, config, version)
    app[METERS] = Meters(registry or CollectorRegistry())
    routes = served(config.coordinator.api)
    app[OPENAPI] = openapi(routes, version)
    add_routes(app, routes)
    app.middlewares.extend(_middlewares(app, config))
    app.on_response_prepare.extend([note_begun, harden])
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
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
    found += [app[METERS].middleware, errors]
    if settings.cors.enabled:
        found.append(cors(settings.cors, app))
    if settings.rate_limit.enabled:
        found.append(rate_limit(settings.rate_limit.rate, settings.rate_limit.burst))
    if settings.basic_auth.enabled or settings.key_auth.enabled:
        found.append(auth(settings))
    found.append(request_limits)
    return found


async def _start(app: web.Application) -> None:
    await make_first_user(app[API])


async def _stop(app: web.Application) -> None:
    app[API].closing.set()
