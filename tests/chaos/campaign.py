"""A campaign: jobs go in all the time, faults strike one after another, and in the end everything is counted."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import ENDED, wait_for
from tests.chaos.faults import Fault
from tests.chaos.jobs import Jobs, Work
from tests.chaos.plant import Plant
from tests.chaos.receiver import Receiver

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
    """One campaign on a plant. `pace` is the time between two jobs; `say` is told each fault once it is healed."""

    def __init__(
        self,
        plant: Plant,
        ledger: Ledger,
        receiver: Receiver,
        seed: int,
        pace: float,
        say: Callable[[str], None],
    ) -> None:
        self._plant = plant
        self._ledger = ledger
        self._receiver = receiver
        self.seed = seed
        self._random = Random(seed)
        self._pace = pace
        self._say = say
        self._jobs = Jobs(ledger, Random(seed + 1), receiver.url, contained=plant.contained)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.accepted: dict[str, Work] = {}
        self.struck: list[Struck] = []

    def run(self, faults: Iterable[Fault]) -> None:
        """Have these faults strike under load, each once the last is healed; then wait for every job's end."""
        submitting = threading.Thread(target=self._keep_submitting, daemon=True)
        submitting.start()
        try:
            for fault in faults:
                if fault.can_strike(self._plant):
                    self._strike(fault)
        finally:
            self._done.set()
            submitting.join()
        self._wait_ended(self._open(), AFTER_OUTAGE + SLACK, "the last jobs")

    def _keep_submitting(self) -> None:
        while not self._done.wait(self._pace):
            if self._busy():
                continue
            work = self._jobs.next()
            answer = self._plant.ask("POST", "/jobs", json.dumps(work.job))
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
        left = set(ids)

        def none_left() -> bool:
            for job_id in sorted(left):
                answer = self._plant.ask("GET", f"/jobs/{job_id}")
                if answer is None or answer[1].get("state") not in ENDED:
                    assert answer is None or answer[0] == 200, (job_id, answer)
                    return False
                left.discard(job_id)
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

    # --- what became of it ----------------------------------------------------------------------------------------

    def table(self) -> str:
        """Return what struck and how long it took to heal, as a table."""
        head = "| fault | where | lasted | healed after |\n|---|---|---|---|"
        return "\n".join([head, *(struck.row() for struck in self.struck)])

    def faults_found(self) -> list[str]:
        """Return what is wrong, by the ledger and the receiver; nothing where every promise was kept."""
        found: list[str] = []
        ends = Counter(words[4] for words in self._ledger.lines("end"))
        for job_id, work in self.accepted.items():
            job = self._plant.get(f"/jobs/{job_id}")
            found += [f"{work.kind} {job_id}: {fault}" for fault in self._wrong(job, work, ends)]
        return found + self._repeats()

    def _wrong(self, job: Any, work: Work, ends: Counter[str]) -> list[str]:
        found = []
        if job["state"] != work.state:
            return [f"{job['state']} ({job.get('error')}), not {work.state}"]
        if work.result is not None and job.get("result") != work.result:
            found.append(f"its result is {job.get('result')!r}, not {work.result!r}")
        found += [f"{name} never ended" for name in work.names if not ends[name]]
        if work.log_lines and (lines := self._log_lines(job["id"])) != work.log_lines:
            found.append(
                lines if isinstance(lines, str) else f"{lines} lines, not {work.log_lines}"
            )
        told = self._told(job["id"], work.state)
        expected = {"PENDING": 1, "RUNNING": 1, work.state: 1}
        if told != expected:
            found.append(f"its webhooks told {dict(told)}")
        return found + self._wrong_counts(job, work)

    def _told(self, job_id: str, state: str) -> Counter[str]:
        def complete() -> bool:
            return set(self._receiver.told(job_id)) >= {"PENDING", "RUNNING", state}

        with contextlib.suppress(AssertionError):  # the count says it
            wait_for(complete, 60, "its webhooks")
        return self._receiver.told(job_id)

    def _wrong_counts(self, job: Any, work: Work) -> list[str]:
        """An end that was applied twice would show as a position, an attempt or a child too many."""
        found = []
        top = len(work.job["tasks"])
        if work.state == "COMPLETED" and job["position"] != top + 1:
            found.append(f"its position is {job['position']}, not {top + 1}")
        names = Counter(task["name"] for task in job["execution"] if not task.get("parentId"))
        expected = Counter(task["name"] for task in work.job["tasks"])
        expected.update({name: count - 1 for name, count in work.attempts.items()})
        if work.state == "COMPLETED" and names != expected:
            found.append(f"its tasks are {dict(names)}")
        return found

    def _log_lines(self, job_id: str) -> int | str:
        """Return how many lines the log has, or what is wrong with their numbers."""
        server = self._plant.coordinators[0]
        url = f"{server.url}/jobs/{job_id}/log/download"
        with urllib.request.urlopen(url, timeout=60) as answer:
            lines = [
                line for line in answer.read().decode().splitlines() if line.startswith("line")
            ]
        numbers = [int(line.split()[1]) for line in lines]
        if numbers != list(range(1, len(numbers) + 1)):
            return f"its log has the lines {numbers}"
        return len(numbers)

    def _repeats(self) -> list[str]:
        """Runs made again without a worker having died under them."""
        times: dict[tuple[str, str], list[float]] = {}
        for task, attempt, _, at, name in self._ledger.lines("start"):
            times.setdefault((task, attempt, name), []).append(float(at))  # type: ignore[arg-type]
        excuses = [(s.began, s.over) for s in self.struck if s.fault.repeats]
        found = []
        for key, began in times.items():
            for first, second in zip(sorted(began), sorted(began)[1:], strict=False):
                if not any(first <= over and second >= start for start, over in excuses):
                    found.append(f"{key} ran twice, {second - first:.1f} s apart")
        return found
