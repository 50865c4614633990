"""What is true of a campaign's jobs, by what their scripts wrote, the webhooks that came, and what the API says."""

from __future__ import annotations

import contextlib
import math
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import ENDED, wait_for
from tests.chaos.jobs import Work
from tests.chaos.plant import Site
from tests.chaos.receiver import Receiver

LOST = "jobs lost"
STUCK = "jobs stuck"
OTHER = "jobs with an end or a result that is not theirs"
TWICE = "ends applied twice"
LINES = "logs with lines missing or doubled"
WEBHOOKS = "jobs with webhooks missing or doubled"
AGAIN = "runs made again without cause"

KINDS = (LOST, STUCK, OTHER, TWICE, LINES, WEBHOOKS, AGAIN)
"""What may be wrong."""

ON_ITS_WAY = 10.0
"""Seconds that an end may take from its script to the datastore; a worker that dies before that runs it again."""


Excuse = tuple[float, float]
"""From when until when something struck for which runs may be made again, as the ledger has times."""


@dataclass(frozen=True)
class Wrong:
    """A promise that was broken, of a job or a run."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


class Truth:
    """What `ledger` and `receiver` know, beside what the site says of the same jobs."""

    def __init__(self, site: Site, ledger: Ledger, receiver: Receiver) -> None:
        self._site = site
        self._ledger = ledger
        self._receiver = receiver
        self.log_losses: Sequence[Excuse] = ()
        """When parts of logs may have been lost; their tasks must say so."""

    def wrong(self, accepted: Mapping[str, Work], excuses: Sequence[Excuse]) -> list[Wrong]:
        """Return what is wrong with these jobs; nothing where every promise was kept."""
        ends = Counter(words[4] for words in self._ledger.lines("end"))
        made = self._made()
        found: list[Wrong] = []
        for job_id, work in accepted.items():
            found += self._wrong(job_id, work, ends, made)
        return [*found, *self._again(excuses)]

    def _made(self) -> Counter[str]:
        """How many attempts of each script there were."""
        lines = self._ledger.lines("start")
        return Counter(name for *_, name in {(words[0], words[1], words[4]) for words in lines})

    def _wrong(
        self, job_id: str, work: Work, ends: Counter[str], made: Counter[str]
    ) -> Iterator[Wrong]:
        name = f"{work.kind} {job_id}"
        job = self._job(job_id)
        if job is None:
            yield Wrong(LOST, name)
        elif job["state"] not in ENDED:
            yield Wrong(STUCK, f"{name} is {job['state']}")
        elif job["state"] != work.state:
            yield Wrong(OTHER, f"{name} is {job['state']} ({job.get('error')}), not {work.state}")
        else:
            for kind, detail in self._faults(job, work, ends, made):
                yield Wrong(kind, f"{name}: {detail}")

    def _job(self, job_id: str) -> Any:
        status, job = wait_for(lambda: self._site.ask("GET", f"/jobs/{job_id}"), 120, "an answer")
        assert status in (200, 404), (status, job)
        return job if status == 200 else None

    def _faults(
        self, job: Any, work: Work, ends: Counter[str], made: Counter[str]
    ) -> Iterator[tuple[str, str]]:
        if work.result is not None and job.get("result") != work.result:
            yield OTHER, f"its result is {job.get('result')!r}, not {work.result!r}"
        for name in work.names:
            if not ends[name]:
                yield OTHER, f"{name} never ended"
            if made[name] > work.attempts.get(name, 1):
                yield TWICE, f"{name} has {made[name]} attempts"
        if work.log_lines:
            yield from self._log(job, work)
        yield from self._told(job["id"], work.state)
        yield from counted_twice(job, work)

    def _told(self, job_id: str, state: str) -> Iterator[tuple[str, str]]:
        expected = {"PENDING": 1, "RUNNING": 1, state: 1}
        with contextlib.suppress(AssertionError):  # the count says it
            wait_for(lambda: set(self._receiver.told(job_id)) >= set(expected), 60, "its webhooks")
        told = self._receiver.told(job_id)
        if told != expected:
            yield WEBHOOKS, f"its webhooks told {dict(told)}"

    def _log(self, job: Any, work: Work) -> Iterator[tuple[str, str]]:
        url = f"{self._site.coordinators[0].url}/jobs/{job['id']}/log/download"
        with urllib.request.urlopen(url, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        numbers = [int(line.split()[1]) for line in lines if line.startswith("line")]
        if numbers == list(range(1, work.log_lines + 1)):
            return
        without_doubles = numbers == sorted(set(numbers))
        lost = parts_lost(self._ledger, work.names, self.log_losses)
        if not (without_doubles and lost and self._says_incomplete(job)):
            yield LINES, f"its log has the lines {numbers} of {work.log_lines}"

    def _says_incomplete(self, job: Any) -> bool:
        tasks = [self._site.ask("GET", f"/tasks/{task['id']}") for task in job["execution"]]
        return any(answer and answer[1].get("logIncomplete") for answer in tasks)

    def _again(self, excuses: Sequence[Excuse]) -> Iterator[Wrong]:
        """Runs made again without a worker having died under them."""
        ended = times_of(self._ledger.lines("end"))
        for run, began in times_of(self._ledger.lines("start")).items():
            for first, second in pairwise(began):
                until = min((end for end in ended.get(run, []) if end >= first), default=second)
                if not excused(first, until + ON_ITS_WAY, second, excuses):
                    yield Wrong(AGAIN, f"{run} ran twice, {second - first:.1f} s apart")


def parts_lost(ledger: Ledger, names: Collection[str], losses: Iterable[Excuse]) -> bool:
    """Whether parts of logs were lost while scripts of these names ran, or their last parts were on their way."""
    began, ended = (
        [float(at) for *_, at, name in ledger.lines(word) if name in names]
        for word in ("start", "end")
    )
    last = max(ended, default=math.inf) + ON_ITS_WAY
    return excused(min(began, default=0.0), last, math.inf, losses)


def times_of(lines: Iterable[list[str]]) -> dict[tuple[str, str, str], list[float]]:
    """Return when each attempt wrote such a line, in order, by its task, its number and its name."""
    times: dict[tuple[str, str, str], list[float]] = {}
    for task, attempt, _, at, name in lines:
        times.setdefault((task, attempt, name), []).append(float(at))
    return {run: sorted(at) for run, at in times.items()}


def excused(first: float, until: float, second: float, excuses: Iterable[Excuse]) -> bool:
    """Whether a fault struck a run that was under way from `first` until `until`, before the `second` began."""
    return any(first <= over and start <= until and start <= second for start, over in excuses)


def counted_twice(job: Any, work: Work) -> Iterator[tuple[str, str]]:
    """An end that was applied twice shows as a position, an attempt or a child too many."""
    done = Counter(task["name"] for task in job["execution"] if task["state"] == "COMPLETED")
    for name, count in done.items():
        if count > 1:
            yield TWICE, f"{name} completed {count} times"
    if work.state != "COMPLETED":
        return
    top = len(work.job["tasks"])
    if job["position"] != top + 1:
        yield TWICE, f"its position is {job['position']}, not {top + 1}"
    names = Counter(task["name"] for task in job["execution"] if not task.get("parentId"))
    expected = Counter(task["name"] for task in work.job["tasks"])
    expected.update({name: count - 1 for name, count in work.attempts.items()})
    if names != expected:
        yield TWICE, f"its tasks are {dict(names)}"
