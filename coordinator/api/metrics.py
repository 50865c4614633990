"""`GET /metrics`: metrics of the whole system, as JSON and for Prometheus."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from coordinator.api.context import Api, api_of
from coordinator.api.http import Media, Route, answer
from coordinator.api.nodes import present_nodes
from coordinator.queue_stats import all_queues
from shared.broker.port import QueueInfo
from shared.errors import BrokerUnavailable, StoreUnavailable
from shared.http_server import scraped
from shared.metrics import ACCEPTED, BoundedNames
from shared.model.documents import JobDocument, TaskDocument
from shared.model.queues import COORDINATOR_QUEUES, is_process_queue
from shared.model.states import JobState, TaskState
from shared.model.views import MetricsView
from shared.model.views.nodes_users import JobFigures, NodeFigures, TaskFigures

_FIGURES_WITHIN: Final = 8.0
"""Seconds: Prometheus waits for 10."""
_ONLINE: Final = ("UP", "DRAINING")


class CoordinatorMeters:
    """The figures of the whole system for Prometheus, in the registry of this coordinator."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._queues = BoundedNames(COORDINATOR_QUEUES)
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

    async def refresh(self, api: Api) -> None:
        """Take over the present figures. Where the datastore or the broker does not answer in time, there are none of
        theirs; what this process itself counts is told all the same, and then matters most."""
        for gauge in (self.jobs, self.tasks, self.nodes, self.cpu):
            gauge.set(math.nan)
        for gauge in (self.ready, self.unacked, self.subscribers):
            gauge.clear()
        with suppress(StoreUnavailable, BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(_FIGURES_WITHIN):
                self._take_over(await _figures(api))
                self.take_over_queues(await all_queues(api.store, api.broker))

    def _take_over(self, figures: MetricsView) -> None:
        self.jobs.set(figures.jobs.running)
        self.tasks.set(figures.tasks.running)
        self.nodes.set(figures.nodes.online)
        self.cpu.set(figures.nodes.cpu_percent)

    def take_over_queues(self, found: Sequence[QueueInfo]) -> None:
        """Take over the present figures of all queues but those that are new with each start."""
        queues = [queue for queue in found if not is_process_queue(queue.name)]
        self._queues.keep([queue.name for queue in queues])
        # Where there are too many to tell apart, those that nobody takes from come first.
        for queue in sorted(queues, key=lambda each: not each.size or each.subscribers > 0):
            name = self._queues.label(queue.name)
            self.ready.labels(name).inc(queue.size)
            if queue.unacked is not None:
                self.unacked.labels(name).inc(queue.unacked)
            self.subscribers.labels(name).inc(queue.subscribers)


METERS: Final = web.AppKey("METERS", CoordinatorMeters)


async def metrics(request: web.Request) -> web.StreamResponse:
    """Answer the figures; in Prometheus' format where the client asks for text."""
    api, meters = api_of(request), request.app[METERS]
    accept = request.headers.get("Accept", "")
    if not _asks_for_text(accept):
        return answer(await _figures(api))
    await meters.refresh(api)
    return scraped(meters.registry, accept)


def _asks_for_text(accept: str) -> bool:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "application/json" not in kinds and any(kind in ACCEPTED for kind in kinds)


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


NOTED: Final = (
    "run_lost", "run_handed_back", "lease_ran_out", "new_era", "given_up", "dead_letter", "end_refused",
    "webhook_not_evaluated", "intent_of_another_version", "swept_unconfirmed", "swept_unheard", "swept_unwanted",
    "swept_open_under_ended", "swept_lower_restarts", "swept_lost_subjob", "swept_composite", "swept_free_slot",
    "swept_overdue",
)  # fmt: skip
"""What is shown before it happens for the first time, so that its rate is right from then on."""


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
        for what in sorted({*self._counts, *NOTED}):
            family.add_metric((what,), self._counts.get(what, 0))
        yield family
