"""A campaign: jobs go in all the time, and faults strike one after another. What became of it is in `truth`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import ENDED, wait_for
from tests.chaos.faults import Fault
from tests.chaos.jobs import Jobs, Work
from tests.chaos.plant import Plant

AFTER_FAULT = 60.0
AFTER_OUTAGE = 90.0
"""Seconds within which all is put right (engine spec, promise 2)."""

MOST_AT_ONCE = 24
"""Jobs that run at a time."""

SLACK = 45.0
"""Seconds more for the work itself, on a machine that does much else."""


def now() -> float:
    """Seconds since the machine started, as the ledger has them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Struck:
    """A fault that struck: when, and how long it took until all that was there before had ended."""

    fault: Fault
    what: str
    began: float
    over: float
    healed: float

    def row(self) -> str:
        """Return it as a row of the table."""
        return f"| {self.fault.name} | {self.what} | {self.over - self.began:.0f} s | {self.healed - self.over:.0f} s |"


class Campaign:
    """One campaign on a plant. Webhooks go to `hook`; `pace` is the time between two jobs; `say` is told each fault
    once it is healed."""

    def __init__(
        self,
        plant: Plant,
        ledger: Ledger,
        hook: str,
        seed: int,
        pace: float,
        say: Callable[[str], None],
    ) -> None:
        self._plant = plant
        self.seed = seed
        self._random = Random(seed)
        self._pace = pace
        self._say = say
        self.jobs = Jobs(ledger, Random(seed + 1), hook, contained=plant.contained)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.accepted: dict[str, Work] = {}
        self.struck: list[Struck] = []
        self._ended: set[str] = set()
        """Those that were seen ended, and are not asked for again until all is judged."""

    def run(self, faults: Iterable[Fault]) -> None:
        """Have these faults strike under load, each once the last is healed; then wait for every job's end."""
        with ThreadPoolExecutor(1, "submitting") as threads:
            submitting = threads.submit(self._keep_submitting)
            try:
                for fault in faults:
                    if submitting.done():
                        break  # of a fault of its own
                    if fault.can_strike(self._plant):
                        self._strike(fault)
            finally:
                self._done.set()
        submitting.result()
        self._wait_ended(self._open(), AFTER_OUTAGE + SLACK, "the last jobs")

    def _keep_submitting(self) -> None:
        while not self._done.wait(self._pace):
            if self._busy():
                continue
            work = self.jobs.next()
            # By name, so that a coordinator asked after one that died with the answer makes no second job.
            key = {"Idempotency-Key": f"{self.seed}-{work.number}"}
            answer = self._plant.ask("POST", "/jobs", json.dumps(work.job), key)
            if answer is None:
                continue  # nobody promised anything
            status, body = answer
            assert status == 200, (status, body, work.job)
            with self._lock:
                self.accepted[body["id"]] = work

    def _busy(self) -> bool:
        """Whether this machine has as much to do as it can, so that more would only wait."""
        answer = self._plant.ask("GET", "/metrics")
        return answer is not None and answer[1]["jobs"]["running"] >= MOST_AT_ONCE

    def _strike(self, fault: Fault) -> None:
        self._done.wait(self._random.uniform(1, 4))
        began = now()
        what = fault.strike(self._plant, self._random)
        over = now()
        limit = (AFTER_OUTAGE if fault.outage else AFTER_FAULT) + SLACK
        self._wait_ended(self._open(), limit, f"all jobs of before: {fault.name} {what}")
        self.struck.append(Struck(fault, what, began, over, now()))
        self._say(self.struck[-1].row())

    def _open(self) -> set[str]:
        with self._lock:
            return set(self.accepted)

    def _wait_ended(self, ids: set[str], within: float, why: str) -> None:
        left = ids - self._ended

        def none_left() -> bool:
            for job_id in sorted(left):
                answer = self._plant.ask("GET", f"/jobs/{job_id}")
                if answer is None or answer[1].get("state") not in ENDED:
                    assert answer is None or answer[0] == 200, (job_id, answer)
                    return False
                left.discard(job_id)
                self._ended.add(job_id)
            return True

        try:
            wait_for(none_left, within, why, every=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._stories(left)}") from None

    def _stories(self, ids: set[str]) -> str:
        stories = []
        for job_id in sorted(ids):
            answer = self._plant.ask("GET", f"/jobs/{job_id}")
            if answer is not None and answer[1].get("state") not in ENDED:
                stories.append(json.dumps(answer[1]))
        return "\n".join(stories[:5])

    def table(self) -> str:
        """Return what struck and how long it took to heal, as a table."""
        head = "| fault | where | lasted | healed after |\n|---|---|---|---|"
        return "\n".join([head, *(struck.row() for struck in self.struck)])
