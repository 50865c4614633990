"""What every process tells Prometheus: of itself, its loops, and how long what it asks of others takes."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from shared.supervision import Supervision, present
from shared.tls import certificate_end

_T = TypeVar("_T")

ACCEPTED: Final = ("application/openmetrics-text", "text/plain")
"""Media types in which a client asks for Prometheus' format."""

SHORT_TIMES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LONG_TIMES: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
"""Bounds of buckets, in seconds."""

BROKER_OPERATIONS: Final = ("ping", "publish", "publish_event", "queue", "queues", "ready")
"""What is measured of the broker."""

NAMES_TOLD_APART: Final = 100
OTHER: Final = "other"


def process_registry(version: str) -> CollectorRegistry:
    """Return a registry with what all processes tell: their version, resources and loops."""
    registry = CollectorRegistry()
    info = Gauge("haulier_info", "The version that runs", ("version",), registry=registry)
    info.labels(version).set(1)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(LoopFigures(present.get()))
    return registry


def watch_certificates(registry: CollectorRegistry, files: Mapping[str, str]) -> None:
    """Show until when the certificates are valid that this process has read, by the setting that names the file."""
    ends = Gauge(
        "haulier_certificate_expiry_timestamp_seconds",
        "When a certificate that this process shows will have expired, by setting",
        ("setting",),
        registry=registry,
    )
    for setting, file in files.items():
        if file:
            ends.labels(setting).set(certificate_end(file).timestamp())


class BoundedNames:
    """Keeps users' names fit for a label: `always`, and the first hundred others, are told apart; the rest are
    `other`."""

    def __init__(self, always: Collection[str] = (), most: int = NAMES_TOLD_APART) -> None:
        self._always = frozenset(always)
        self._known = set(always)
        self._most = len(self._known) + most

    def keep(self, names: Collection[str]) -> None:
        """Forget the names that are not among `names`: others may take their places."""
        self._known &= self._always.union(names)

    def label(self, name: str) -> str:
        """Return what stands for a name."""
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


class Latencies:
    """How long calls of one port took, and how many failed, by operation."""

    def __init__(self, port: str, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            f"haulier_{port}_seconds",
            f"Time that the {port} took",
            ("operation",),
            buckets=SHORT_TIMES,
            registry=registry,
        )
        self._errors = Counter(
            f"haulier_{port}_errors",
            f"Calls of the {port} that failed",
            ("operation",),
            registry=registry,
        )

    def watch(self, port: _T, operations: Collection[str]) -> _T:
        """Return `port` with these of its methods measured."""
        return cast("_T", _Watched(port, {name: self._measured(port, name) for name in operations}))

    def _measured(self, port: object, operation: str) -> Callable[..., Any]:
        call = getattr(port, operation)
        seconds, errors = self._seconds.labels(operation), self._errors.labels(operation)

        async def measured(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return await call(*args, **more)
            except Exception:
                errors.inc()
                raise
            finally:
                seconds.observe(time.perf_counter() - began)

        return measured


class _Watched:
    """Stands before a port; what is not measured is the port's own."""

    def __init__(self, port: object, measured: dict[str, Callable[..., Any]]) -> None:
        self._port = port
        self.__dict__.update(measured)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


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
        rounds = GaugeMetricFamily(
            "haulier_loop_last_round_timestamp_seconds",
            "When the last round of a loop ended well; of several of a name, the one that is furthest behind",
            labels=("loop",),
        )
        begun_again = self._process.restarts
        not_getting_on = Tally(loop.name for loop in self._process.loops if loop.stuck())
        for name in sorted({*begun_again, *(loop.name for loop in self._process.loops)}):
            restarts.add_metric((name,), begun_again[name])
            stuck.add_metric((name,), not_getting_on[name])
        for name, at in sorted(self._last_rounds().items()):
            rounds.add_metric((name,), at)
        yield restarts
        yield stuck
        yield rounds

    def _last_rounds(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for loop in self._process.loops:
            if loop.last_round is not None:
                found[loop.name] = min(loop.last_round, found.get(loop.name, loop.last_round))
        return found
