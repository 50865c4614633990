"""The kinds of jobs of a campaign, and what each must have come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.acceptance.ledger import Ledger

RESULT = "printf {} > $TORK_OUTPUT"


@dataclass(frozen=True)
class Work:
    """A job, and what is true of it once it has completed."""

    kind: str
    number: int
    job: dict[str, Any]
    names: list[str]
    """Of the scripts that must have come to their end, once each where nothing died."""
    result: str | None = None
    log_lines: int = 0
    """Numbered lines that the first task writes."""
    state: str = "COMPLETED"
    attempts: dict[str, int] = field(default_factory=dict)
    """How many attempts top-level tasks take that take more than one."""


class Jobs:
    """Makes jobs of all kinds, whose scripts write into `ledger` and whose webhooks go to `hook`; containers too where
    there is a worker that can run them."""

    def __init__(
        self, ledger: Ledger, random: Random, hook: str = "", *, contained: bool = False
    ) -> None:
        self._ledger = ledger
        self._random = random
        self._hook = hook
        self._number = 0
        self._kinds: tuple[Callable[[int], Work], ...] = (
            self.chain,
            self.parallel,
            self.each,
            self.subjob,
            self.retried,
            self.framed,
            self.logged,
            self.failing,
            *((self.contained,) if contained else ()),
        )

    def next(self) -> Work:
        """Return the next job: the kinds take turns, so that a short campaign has them all."""
        self._number += 1
        return self._kinds[self._number % len(self._kinds)](self._number)

    def _task(self, number: int, name: str, work: str = "", **fields: Any) -> dict[str, Any]:
        pause = f"sleep {self._random.uniform(0.0, 0.6):.2f}\n"
        return self._ledger.task(pause + work, f"{number}.{name}", **fields)

    def _work(
        self, kind: str, number: int, tasks: list[dict[str, Any]], names: str, **more: Any
    ) -> Work:
        job = {"name": f"{kind} {number}", "tasks": tasks, "output": more.pop("output", "")}
        if self._hook:
            job["webhooks"] = [{"url": self._hook, "event": "job.StateChange"}]
        return Work(kind, number, job, [f"{number}.{name}" for name in names.split()], **more)

    def chain(self, number: int) -> Work:
        """Three tasks, each of which is given what the one before gave."""
        add = 'printf $((N + 1)) > "$TORK_OUTPUT"'
        tasks = [
            self._task(number, "a", RESULT.format(number), var="a"),
            self._task(number, "b", add, var="b", env={"N": "{{ tasks.a }}"}),
            self._task(number, "c", add, var="c", env={"N": "{{ tasks.b }}"}),
        ]
        output = "{{ tasks.c }}"
        return self._work("chain", number, tasks, "a b c", output=output, result=str(number + 2))

    def parallel(self, number: int) -> Work:
        """Four at once, then one."""
        children = [self._task(number, name) for name in "abcd"]
        tasks = [{"name": "all", "parallel": {"tasks": children}}, self._task(number, "e")]
        return self._work("parallel", number, tasks, "a b c d e")

    def each(self, number: int) -> Work:
        """Six items, two at a time."""
        child = self._task(number, "x{{ item.index }}")
        child["env"] = {"I": "{{ item.index }}"}
        child["run"] = child["run"].replace("x{{ item.index }}", "x$I")
        each = {"list": "sequence(1, 7)", "concurrency": 2, "task": child}
        tasks = [{"name": "each", "each": each}, self._task(number, "z")]
        return self._work("each", number, tasks, "x0 x1 x2 x3 x4 x5 z")

    def subjob(self, number: int) -> Work:
        """A job in a job."""
        inner = [self._task(number, "a"), self._task(number, "b", RESULT.format(7), var="b")]
        below = {"name": "below", "tasks": inner, "output": "{{ tasks.b }}"}
        tasks = [
            {"name": "sub", "var": "s", "subjob": below},
            self._task(
                number, "c", 'printf "$S" > "$TORK_OUTPUT"', var="c", env={"S": "{{ tasks.s }}"}
            ),
        ]
        return self._work("subjob", number, tasks, "a b c", output="{{ tasks.c }}", result="7")

    def retried(self, number: int) -> Work:
        """A task that fails twice."""
        name, work = f"{number}.a", "test $HAULIER_ATTEMPT -ge 3 || exit 1"
        retry = {"limit": 3, "initialDelay": "300ms"}
        tasks = [self._task(number, "a", work, retry=retry), self._task(number, "b")]
        return self._work("retried", number, tasks, "a b", attempts={name: 3})

    def framed(self, number: int) -> Work:
        """A task with one before and one after it, on the same worker."""
        main = self._task(number, "a")
        main["pre"] = [self._task(number, "p")]
        main["post"] = [self._task(number, "q")]
        return self._work("framed", number, [main], "p a q")

    def logged(self, number: int) -> Work:
        """A task that counts aloud, for a while."""
        lines = self._random.randrange(20, 200)
        work = f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i"
        work += "; [ $((i % 20)) = 0 ] && sleep 0.3; done; true"
        return self._work("logged", number, [self._task(number, "a", work)], "a", log_lines=lines)

    def failing(self, number: int) -> Work:
        """A job that fails at its second task, beside which others run."""
        children = [self._task(number, "b", "exit 3"), self._task(number, "c", "sleep 20")]
        tasks = [self._task(number, "a"), {"name": "all", "parallel": {"tasks": children}}]
        return self._work("failing", number, tasks, "a", state="FAILED")

    def contained(self, number: int) -> Work:
        """Two containers, of the queue that a worker with an engine takes from."""
        tasks = [self._task(number, name, **self._container()) for name in "ab"]
        return self._work("contained", number, tasks, "a b")

    def lasting(self, *, contained: bool = False) -> Work:
        """A task that lasts until it is stopped, in a container or not."""
        self._number += 1
        fields = self._container() if contained else {}
        task = self._task(self._number, "a", "sleep 600", **fields)
        return self._work("lasting", self._number, [task], "a", state="CANCELLED")

    def _container(self) -> dict[str, Any]:
        where = str(self._ledger.path)
        mounts = [
            {"type": "bind", "source": where, "target": where},
            {"type": "volume", "target": "/data"},
        ]
        return {"image": "alpine:3.18.3", "queue": "contained", "mounts": mounts}
