"""Evaluations that cost more than there is: of memory, and of the life of the process that tries them."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable

import psutil
import pytest

from tests.acceptance.processes import ENDED, Standalone, wait_for

pytestmark = [pytest.mark.xdist_group("shell"), pytest.mark.timeout(120)]

Make = Callable[..., Standalone]

ADDRESS_SPACE = 1 << 30
"""Bytes that the process may map: it needs 700 MB, most of it never touched."""

BIG = "{{ replace(repeat('a', 100000), 'a', repeat('b', 160)) }}"
"""16 MB; 60 of them killed a process with such a limit, and at each start again."""

STEPS = 500_000
LONG = "{{ reduce(1..900000, #acc + # + # + # + #) }}"
"""More than that: it takes a second in a process beside."""


def job(template: str = "", count: int = 1) -> dict[str, object]:
    env = {f"X{number}": template for number in range(count)}
    return {"name": "job", "tasks": [{"name": "t", "image": "any", "run": "true", "env": env}]}


def check_serves(server: Standalone) -> None:
    assert server.get("/health")["status"] == "UP"
    assert server.wait_job(server.submit(job()))["state"] == "COMPLETED"


def evaluating(server: Standalone) -> int:
    """Return how many processes beside it evaluate."""
    count = 0
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            count += "coordinator.effects.evaluation_process" in child.cmdline()
    return count


def test_what_needs_more_memory_than_there_is_fails_and_its_process_lives(
    standalone: Make,
) -> None:
    server = standalone()
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    ids = [server.submit(job(BIG, 60)) for _ in range(8)]
    for done in server.wait_jobs(ids, 60).values():
        assert done["state"] == "FAILED"
        assert "env.X0: this builds more than 16,777,216 bytes" in done["error"]
    check_serves(server)


@pytest.mark.slow
def test_what_its_process_dies_of_is_tried_alone_at_the_next_start_but_one(
    standalone: Make,
) -> None:
    server = standalone(HAULIER_ENGINE_EXPRESSION_STEPS=str(STEPS))
    ids = [server.submit(job(LONG)) for _ in range(2)]
    for _ in range(2):
        wait_for(lambda: evaluating(server) == 2, 60, "both evaluated at once", every=0.02)
        server.kill()
        server.start()
    check_serves(server)
    at_once: set[int] = set()

    def all_ended() -> bool:
        at_once.add(evaluating(server))
        return {server.job(job_id)["state"] for job_id in ids} <= ENDED

    wait_for(all_ended, 60, "both jobs ended", every=0.02)
    assert max(at_once) == 1
    for job_id in ids:
        ended = server.job(job_id)
        assert ended["state"] == "FAILED"
        assert f"env.X0: this takes more than {STEPS:,} steps" in ended["error"]
    check_serves(server)
