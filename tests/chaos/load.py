"""Jobs of all kinds that go in all the time, and the wait for their ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import ENDED, wait_for
from tests.chaos.jobs import Jobs, Work
from tests.chaos.plant import Site

MOST_AT_ONCE = 12
"""Jobs that run at a time."""

SLACK = 45.0
"""Seconds more for the work itself, on a machine that does much else."""


class Load:
    """Submits a job every `pace` seconds. Webhooks go to `hook`."""

    def __init__(self, site: Site, ledger: Ledger, hook: str, seed: int, pace: float) -> None:
        self._site = site
        self.seed = seed
        self._pace = pace
        self.jobs = Jobs(ledger, Random(seed + 1), hook, contained=site.contained)
        self._lock = threading.Lock()
        self.done = threading.Event()
        """Whether no more are submitted."""
        self.accepted: dict[str, Work] = {}
        self._ended: set[str] = set()
        """Those that were seen ended, and are not asked for again until all is judged."""

    @contextmanager
    def going(self) -> Iterator[None]:
        """Submit jobs while the block runs; fail after it if that failed."""
        with ThreadPoolExecutor(1, "submitting") as threads:
            submitting = threads.submit(self._keep_submitting)
            try:
                yield
            finally:
                self.done.set()
        submitting.result()

    def _keep_submitting(self) -> None:
        try:
            while not self.done.wait(self._pace):
                if not self._busy():
                    self._submit(self.jobs.next())
        finally:
            self.done.set()

    def _submit(self, work: Work) -> None:
        # By name, so that a coordinator asked after one that died with the answer makes no second job.
        key = {"Idempotency-Key": f"{self.seed}-{work.number}"}
        answer = self._site.ask("POST", "/jobs", json.dumps(work.job), key)
        if answer is None:
            return  # nobody promised anything
        status, body = answer
        assert status == 200, (status, body, work.job)
        with self._lock:
            self.accepted[body["id"]] = work

    def _busy(self) -> bool:
        """Whether this machine has as much to do as it can, so that more would only wait."""
        answer = self._site.ask("GET", "/metrics")
        return answer is not None and answer[1]["jobs"]["running"] >= MOST_AT_ONCE

    def wait_ended(self, within: float, why: str) -> None:
        """Return once all jobs accepted by now have ended, in so many seconds and what the work itself takes."""
        with self._lock:
            left = set(self.accepted) - self._ended

        def none_left() -> bool:
            for job_id in sorted(left):
                answer = self._site.ask("GET", f"/jobs/{job_id}")
                if answer is None or answer[1].get("state") not in ENDED:
                    assert answer is None or answer[0] == 200, (job_id, answer)
                    return False
                left.discard(job_id)
                self._ended.add(job_id)
            return True

        try:
            wait_for(none_left, within + SLACK, why, every=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._stories(left)}") from None

    def _stories(self, ids: set[str]) -> str:
        stories = []
        for job_id in sorted(ids):
            answer = self._site.ask("GET", f"/jobs/{job_id}")
            if answer is not None and answer[1].get("state") not in ENDED:
                stories.append(json.dumps(answer[1]))
        return "\n".join(stories[:5])
