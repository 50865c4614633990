"""What a worker tells Prometheus: its slots, how runs ended, and how long they took to start."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.metrics import LONG_TIMES, SHORT_TIMES, process_registry
from worker.runtime.port import Outcome

COMPLETED, FAILED, LOST, GIVEN_BACK = "completed", "failed", "lost", "given_back"
"""How a run ends, as metrics say it; `given_back`: it was stopped before its end."""


class WorkerMeters:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self, version: str = "") -> None:
        self.registry = process_registry(version)
        self._runs = Counter(
            "haulier_worker_runs", "Runs that were over", ("outcome",), registry=self.registry
        )
        self._seconds = Histogram(
            "haulier_worker_run_seconds",
            "Time from the grant to the end of runs",
            buckets=LONG_TIMES,
            registry=self.registry,
        )
        self._prepared = Histogram(
            "haulier_worker_prepare_seconds",
            "Time from the grant until a run could begin: an image that is not there is pulled in it",
            buckets=(*SHORT_TIMES, 30, 60, 300),
            registry=self.registry,
        )
        self._overhead = Histogram(
            "haulier_worker_overhead_seconds",
            "Time of runs, from the grant to the end, that their commands did not use",
            buckets=(*SHORT_TIMES, 30, 60, 300),
            registry=self.registry,
        )
        for outcome in (COMPLETED, FAILED, LOST, GIVEN_BACK):
            self._runs.labels(outcome)

    def prepared(self, seconds: float) -> None:
        """Note how long after its grant a run could begin."""
        self._prepared.observe(seconds)

    def ended(self, outcome: Outcome | None, seconds: float) -> None:
        """Note that a run is over, so long after its grant."""
        self._runs.labels(_word(outcome)).inc()
        self._seconds.observe(seconds)
        if outcome is not None and outcome.usage is not None and not outcome.lost:
            self._overhead.observe(max(0.0, seconds - outcome.usage.wall_seconds))

    def watch_slots(self, slots: Callable[[], Iterable[tuple[str, bool]]]) -> None:
        """Show the slots that `slots` gives at each scrape: their queues, and whether they are used."""
        self.registry.register(_SlotFigures(slots))


def _word(outcome: Outcome | None) -> str:
    if outcome is None:
        return GIVEN_BACK
    if outcome.lost:
        return LOST
    return COMPLETED if outcome.error is None else FAILED


class _SlotFigures(Collector):
    def __init__(self, slots: Callable[[], Iterable[tuple[str, bool]]]) -> None:
        self._slots = slots

    def collect(self) -> Iterator[GaugeMetricFamily]:
        slots = GaugeMetricFamily("haulier_worker_slots", "Slots", labels=("queue",))
        used = GaugeMetricFamily(
            "haulier_worker_slots_used", "Slots that hold a task", labels=("queue",)
        )
        all_slots, used_slots = Tally[str](), Tally[str]()
        for queue, busy in self._slots():
            all_slots[queue] += 1
            used_slots[queue] += busy
        for queue in sorted(all_slots):
            slots.add_metric((queue,), all_slots[queue])
            used.add_metric((queue,), used_slots[queue])
        yield slots
        yield used
