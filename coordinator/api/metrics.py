"""`GET /metrics`: metrics of the whole system, as JSON and for Prometheus."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from coordinator.api.context import Api, api_of
from coordinator.api.http import answer
from coordinator.api.nodes import present_nodes
from coordinator.api.routes import Media, Route, RouteHandler, route_of
from coordinator.queue_stats import all_queues
from shared.errors import BrokerUnavailable
from shared.model.documents import JobDocument, TaskDocument
from shared.model.states import JobState, TaskState
from shared.model.views import MetricsView
from shared.model.views.nodes_users import JobFigures, NodeFigures, TaskFigures
from shared.supervision import Supervision

_ONLINE: Final = ("UP", "DRAINING")
_TEXT: Final = ("application/openmetrics-text", "text/plain")


class Meters:
    """The Prometheus metrics of this coordinator, in their own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "haulier_http_requests",
            "Requests answered",
            ("method", "path", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "haulier_http_request_seconds",
            "Time to answer a request",
            ("method", "path"),
            registry=registry,
        )
        self.jobs = Gauge("haulier_jobs_running", "Jobs that run", registry=registry)
        self.tasks = Gauge("haulier_tasks_running", "Tasks that run", registry=registry)
        self.nodes = Gauge("haulier_nodes_online", "Nodes that are online", registry=registry)
        self.cpu = Gauge("haulier_nodes_cpu_percent", "Mean load of nodes", registry=registry)
        self.ready = Gauge(
            "haulier_queue_size", "Messages that are ready", ("queue",), registry=registry
        )
        self.unacked = Gauge(
            "haulier_queue_unacked", "Messages on loan", ("queue",), registry=registry
        )
        self.subscribers = Gauge(
            "haulier_queue_subscribers", "Consumers", ("queue",), registry=registry
        )

    @property
    def middleware(self) -> AioMiddleware:
        """What counts requests, by endpoint rather than path."""

        @web.middleware
        async def metered(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
            started = time.monotonic()
            response = await handler(request)
            route = route_of(request)
            path = route.path if route is not None else "other"
            method = route.method if route is not None else "other"
            self.requests.labels(method, path, str(response.status)).inc()
            if route is not None and not route.endless:
                self.seconds.labels(method, path).observe(time.monotonic() - started)
            return response

        return metered

    async def refresh(self, api: Api, figures: MetricsView) -> None:
        """Take over the present figures; those of queues only where the broker answers."""
        self.jobs.set(figures.jobs.running)
        self.tasks.set(figures.tasks.running)
        self.nodes.set(figures.nodes.online)
        self.cpu.set(figures.nodes.cpu_percent)
        try:
            queues = await all_queues(api.store, api.broker)
        except BrokerUnavailable:
            queues = []
        for gauge in (self.ready, self.unacked, self.subscribers):
            gauge.clear()
        for queue in queues:
            self.ready.labels(queue.name).set(queue.size)
            if queue.unacked is not None:
                self.unacked.labels(queue.name).set(queue.unacked)
            self.subscribers.labels(queue.name).set(queue.subscribers)


METERS: Final = web.AppKey("METERS", Meters)


async def metrics(request: web.Request) -> web.StreamResponse:
    """Answer the figures; in Prometheus' format where the client asks for text."""
    api, meters = api_of(request), request.app[METERS]
    figures = await _figures(api)
    accept = request.headers.get("Accept", "")
    if not _asks_for_text(accept):
        return answer(figures)
    await meters.refresh(api, figures)
    encode, content_type = choose_encoder(accept)
    return web.Response(body=encode(meters.registry), headers={"Content-Type": content_type})


def _asks_for_text(accept: str) -> bool:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "application/json" not in kinds and any(kind in _TEXT for kind in kinds)


async def _figures(api: Api) -> MetricsView:
    online = [node for node in await present_nodes(api) if node.status in _ONLINE]
    load = sum(node.cpu_percent for node in online) / len(online) if online else 0.0
    return MetricsView(
        jobs=JobFigures(running=await api.store.count(JobDocument, {"state": JobState.RUNNING})),
        tasks=TaskFigures(
            running=await api.store.count(TaskDocument, {"state": TaskState.RUNNING})
        ),
        nodes=NodeFigures(online=len(online), cpu_percent=round(load, 2)),
    )


METRICS_ROUTES: Final = (
    Route(
        method="GET",
        path="/metrics",
        handler=metrics,
        group="metrics",
        summary="Get the metrics of the whole system",
        answer=MetricsView,
        also=(Media("text/plain", "The metrics in the Prometheus format."),),
    ),
)


class NotedFigures(Collector):
    """How often each thing was noted: runs lost, leases run out, what the sweeper found. In a quiet system none of
    them grows."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the figures."""
        family = CounterMetricFamily(
            "haulier_noted", "What the engine put right or noted", labels=("what",)
        )
        for what, count in sorted(self._counts.items()):
            family.add_metric((what,), count)
        yield family


class LoopFigures(Collector):
    """How the loops of this process get on, by name."""

    def __init__(self, process: Supervision) -> None:
        self._process = process

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the figures."""
        restarts = CounterMetricFamily(
            "haulier_loop_restarts",
            "Times that a loop of this process failed or hung and was begun again",
            labels=("loop",),
        )
        stuck = GaugeMetricFamily(
            "haulier_loop_stuck", "Loops of this process that do not get on", labels=("loop",)
        )
        begun_again = self._process.restarts
        not_getting_on = Tally(loop.name for loop in self._process.loops if loop.stuck())
        for name in sorted({*begun_again, *(loop.name for loop in self._process.loops)}):
            restarts.add_metric((name,), begun_again[name])
            stuck.add_metric((name,), not_getting_on[name])
        yield restarts
        yield stuck
