"""`GET /health`, `GET /health/live` and `GET /metrics` of a worker."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from shared.config import parse_address
from shared.http_server import IDLE_TIME, BoundedRunner, listen, scraped
from shared.supervision import stuck_loops

PORTS_TRIED = 100
"""Ports tried after the configured one, when several workers share a host."""

_Health = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, or None."""


class HealthServer:
    """Serves `GET /health`, and `GET /health/live`, which speaks of this process's own loops alone: 200 UP, or 503 DOWN
    with the reason. `GET /metrics` is in Prometheus' format."""

    def __init__(
        self, address: str, version: str, health: _Health, registry: CollectorRegistry
    ) -> None:
        self._host, self._port = parse_address(address)
        self._version = version
        self._health = health
        self._registry = registry
        app = web.Application()
        app.router.add_get("/health", self._answer)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/metrics", self._metrics)
        self._runner = BoundedRunner(app, access_log=None, keepalive_timeout=IDLE_TIME)

    async def start(self) -> int:
        """Listen on the configured port, or the next free one; return which."""
        await self._runner.setup()
        tried = range(self._port, min(self._port + PORTS_TRIED, 65_535) + 1) if self._port else (0,)
        for port in tried:
            try:
                return await listen(self._runner, self._host, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or port == tried[-1]:
                    raise
        raise AssertionError("there is always a last port")

    async def close(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        return self._status(await self._health())

    async def _live(self, _: web.Request) -> web.Response:
        return self._status("; ".join(stuck_loops()))

    async def _metrics(self, request: web.Request) -> web.Response:
        return scraped(self._registry, request.headers.get("Accept", ""))

    def _status(self, problem: str | None) -> web.Response:
        if not problem:
            return web.json_response({"status": "UP", "version": self._version})
        body = {"status": "DOWN", "version": self._version, "message": problem}
        return web.json_response(body, status=503)
