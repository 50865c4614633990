"""What the engine noted, as figures for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class NotedFigures(Collector):
    """How often each thing was noted: runs lost, leases run out, what the sweeper found. In a quiet system none of
    them grows."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the figures."""
        family = CounterMetricFamily(
            "haulier_noted", "What the engine put right or noted", labels=("what",)
        )
        for what, count in sorted(self._counts.items()):
            family.add_metric((what,), count)
        yield family
