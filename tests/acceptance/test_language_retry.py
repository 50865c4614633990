"""Further attempts: how many, when, and what a crash between them changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.definitions import each, job, named, parallel, results, seconds, task
from tests.acceptance.processes import Standalone, wait_for

pytestmark = pytest.mark.xdist_group("shell")

Make = Callable[..., Standalone]

LATE = 0.7
"""Seconds by which an attempt may begin later than asked; never earlier."""


def gaps(attempts: list[Any]) -> list[float]:
    """Return the seconds between the end of each attempt and the beginning of the next."""
    return [
        seconds(after["startedAt"]) - seconds(before["failedAt"])
        for before, after in pairwise(attempts)
    ]


def kept(asked: list[float], given: list[float], jitter: float = 0.0) -> bool:
    """Whether attempts came when they were asked for."""
    return len(asked) == len(given) and all(
        want * (1 - jitter) - 0.01 <= got <= want * (1 + jitter) + LATE
        for want, got in zip(asked, given, strict=True)
    )


def test_attempts_come_at_the_delays_asked_for(shell: Standalone) -> None:
    retry = {"limit": 3, "initialDelay": "500ms", "scalingFactor": 2}
    done = shell.wait_job(shell.submit(job(task("exit 1", retry=retry))))
    attempts = named(done, "task")
    assert done["state"] == "FAILED"
    assert [ran["state"] for ran in attempts] == ["FAILED"] * 4
    assert kept([0.5, 1.0, 2.0], gaps(attempts)), gaps(attempts)
    assert [ran["retry"].get("attempts", 0) for ran in attempts] == [0, 1, 2, 3]
    assert len({ran["id"] for ran in attempts}) == 4


@pytest.mark.parametrize(
    ("retry", "asked"),
    [
        ({"limit": 2}, [1.0, 2.0]),
        ({"limit": 2, "initialDelay": "200ms", "scalingFactor": 1}, [0.2, 0.2]),
        ({"limit": 2, "initialDelay": "100ms", "scalingFactor": 5.5}, [0.1, 0.55]),
        ({"limit": 1, "initialDelay": "0s"}, [0.0]),
    ],
)
def test_delays_are_those_of_the_definition(
    shell: Standalone, retry: dict[str, Any], asked: list[float]
) -> None:
    done = shell.wait_job(shell.submit(job(task("exit 1", retry=retry))))
    assert kept(asked, gaps(named(done, "task"))), gaps(named(done, "task"))


def test_jitter_spreads_delays_to_both_sides(shell: Standalone) -> None:
    retry = {"limit": 1, "initialDelay": "2s", "jitter": 0.9}
    ids = [shell.submit(job(task("exit 1", retry=retry))) for _ in range(12)]
    done = shell.wait_jobs(ids, within=60)
    given = [gaps(named(one, "task"))[0] for one in done.values()]
    assert all(kept([2.0], [gap], jitter=0.9) for gap in given), given
    assert min(given) < 1.8
    assert max(given) > 2.2


def test_the_last_attempt_counts_and_knows_its_number(shell: Standalone) -> None:
    script = 'printf %s "$HAULIER_ATTEMPT" > "$TORK_OUTPUT"; test "$HAULIER_ATTEMPT" -ge 3'
    retry = {"limit": 5, "initialDelay": "10ms", "scalingFactor": 1}
    definition = job(task(script, retry=retry, var="n"), task(name="after"), output="{{ tasks.n }}")
    done = shell.wait_job(shell.submit(definition))
    assert (done["state"], done["result"]) == ("COMPLETED", "3")
    assert [ran["state"] for ran in named(done, "task")] == ["FAILED", "FAILED", "COMPLETED"]
    assert results(done) == [None, None, "3"]
    assert "error" not in done


@pytest.mark.parametrize("wrap", [lambda inner: each("1..3", inner), parallel])
def test_children_are_tried_again_each_for_itself(
    shell: Standalone, wrap: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    retry = {"limit": 1, "initialDelay": "10ms"}
    inner = task('test "$HAULIER_ATTEMPT" -ge 2', retry=retry)
    done = shell.wait_job(shell.submit(job(wrap(inner), task(name="after"))))
    assert done["state"] == "COMPLETED"
    states = [ran["state"] for ran in named(done, "task")]
    assert states.count("FAILED") == states.count("COMPLETED") == len(states) / 2


def test_between_attempts_the_job_runs_and_a_cancel_ends_it(shell: Standalone) -> None:
    retry = {"limit": 1, "initialDelay": "5m"}
    job_id = shell.submit(job(task("exit 1", retry=retry)))
    wait_for(lambda: len(named(shell.job(job_id), "task")) == 2, 20, "the next attempt")
    held = named(shell.job(job_id), "task")[1]
    assert (held["state"], shell.job(job_id)["state"]) == ("CREATED", "RUNNING")
    assert shell.call("PUT", f"/jobs/{job_id}/cancel")[0] == 200
    wait_for(
        lambda: named(shell.job(job_id), "task")[1]["state"] == "CANCELLED", 5, "the cancelled"
    )


def test_a_crash_between_attempts_changes_nothing(standalone: Make, tmp_path: Path) -> None:
    server = standalone()
    runs = tmp_path / "runs"
    retry = {"limit": 2, "initialDelay": "8s", "scalingFactor": 1}
    job_id = server.submit(job(task(f"echo run >> {runs}; exit 1", retry=retry)))
    wait_for(lambda: len(named(server.job(job_id), "task")) == 2, 20, "the next attempt")
    server.kill()
    server.start()
    done = server.wait_job(job_id, within=40)
    attempts = named(done, "task")
    assert done["state"] == "FAILED"
    assert len(attempts) == 3
    assert kept([8.0, 8.0], gaps(attempts)), gaps(attempts)
    assert runs.read_text() == "run\n" * 3


def test_an_attempt_that_came_due_while_all_was_down_comes_at_once(
    standalone: Make, tmp_path: Path
) -> None:
    server = standalone()
    retry = {"limit": 1, "initialDelay": "300ms"}
    job_id = server.submit(job(task('test "$HAULIER_ATTEMPT" = 2', retry=retry)))
    wait_for(lambda: len(named(server.job(job_id), "task")) == 2, 20, "the next attempt")
    server.kill()
    server.start()
    assert server.wait_job(job_id, within=10)["state"] == "COMPLETED"
