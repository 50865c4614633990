"""What threads do for loops: where one hangs, its loop is named, and nobody is where one only takes long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from shared import supervision
from shared.metrics import LoopFigures
from shared.supervision import (
    Loop,
    Supervision,
    Tasks,
    came_round,
    end_tasks,
    present,
    start_task,
    stuck_loops,
    waiting,
)
from shared.threads import in_thread, in_thread_of
from tests.unit.test_supervision import until


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervision]:
    """A process of its own, in which a thread hangs soon."""
    monkeypatch.setattr(supervision, "PATIENCE", 0.1)
    monkeypatch.setattr(supervision, "LIVE_WITHIN", 0.2)
    made = Supervision()
    token = present.set(made)
    yield made
    present.reset(token)


class Disk:
    """A disk that hangs until it is mended."""

    def __init__(self) -> None:
        self.mended = threading.Event()
        self.asked = 0

    def read(self) -> str:
        self.asked += 1
        assert self.mended.wait(20)
        return "read"


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.mended.set()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


HANGS = "digging (a hole) waits for a thread that hangs in Disk.read"


@pytest.mark.parametrize("every", [None, 0.01])
@pytest.mark.parametrize("how", ["bare", "in a wait", "in a task", "in threads of its own"])
async def test_a_loop_whose_thread_hangs_is_named_until_the_thread_goes_on(
    process: Supervision, disk: Disk, threads: ThreadPoolExecutor, how: str, every: float | None
) -> None:
    read: list[str] = []
    figures = CollectorRegistry()
    figures.register(LoopFigures(process))

    async def work() -> None:
        if how == "in a wait":
            with waiting():
                read.append(await in_thread(disk.read))
        elif how == "in a task":
            with waiting():
                read.append(await start_task(in_thread(disk.read), "reads"))
        elif how == "bare":
            read.append(await in_thread(disk.read))
        else:
            read.append(await in_thread_of(threads, disk.read))
        with waiting():
            await asyncio.Event().wait()

    with capture_logs() as logged:
        async with Loop("digging", work, about="a hole", every=every, patience=0.1):
            assert await until(stuck_loops) == [HANGS]
            assert figures.get_sample_value("haulier_loop_stuck", {"loop": "digging"}) == 1
            disk.mended.set()
            await until(lambda: read)
            assert stuck_loops() == []
    assert disk.asked == 1, "nothing is begun again while the first may still end"
    assert not process.restarts
    said = [entry for entry in logged if entry["event"] == "a thread hangs"]
    assert (said[0]["loop"], said[0]["work"]) == ("digging (a hole)", "Disk.read")
    assert said[0]["log_level"] == "error"


async def test_a_thread_that_takes_long_and_gives_signs_does_not_hang(process: Supervision) -> None:
    def dig() -> int:
        for _ in range(60):
            time.sleep(0.01)
            came_round()
        return 60

    dug: list[int] = []

    async def work() -> None:
        dug.append(await in_thread(dig))

    async with Loop("digging", work, patience=0.1) as loop:
        while not loop.over:
            assert stuck_loops() == []
            await asyncio.sleep(0.01)
    assert dug == [60]
    assert not process.restarts


async def test_what_waits_for_a_thread_that_is_free_does_not_hang(
    disk: Disk, threads: ThreadPoolExecutor
) -> None:
    async def first() -> None:
        await in_thread_of(threads, disk.read)

    async def second() -> None:
        await in_thread_of(threads, time.monotonic)

    async with Loop("digging", first, about="a hole"):
        await until(lambda: disk.asked)
        async with Loop("waiting", second):
            await until(stuck_loops)
            await asyncio.sleep(0.3)
            assert stuck_loops() == [HANGS]
            disk.mended.set()


async def test_a_thread_that_hangs_for_no_loop_is_told_of_in_the_log_only(disk: Disk) -> None:
    tasks = Tasks()
    with capture_logs() as logged:
        tasks.start(in_thread(disk.read), "reads")
        await until(lambda: logged)
        await asyncio.sleep(0.2)
        assert stuck_loops() == []
        disk.mended.set()
        await tasks.finish()
    assert {(entry["event"], entry["work"]) for entry in logged} == {
        ("a thread hangs", "Disk.read")
    }
    assert "loop" not in logged[0]


async def test_a_thread_that_nobody_waits_for_any_more_is_named_too(
    process: Supervision, disk: Disk, threads: ThreadPoolExecutor
) -> None:
    async def work() -> None:
        reads = start_task(in_thread_of(threads, disk.read), "reads")
        await until(lambda: disk.asked)
        await end_tasks(reads)
        with waiting():
            await asyncio.Event().wait()

    async with Loop("digging", work, about="a hole"):
        assert await until(stuck_loops) == [HANGS]
        disk.mended.set()
        await until(lambda: not stuck_loops())


async def test_what_is_cancelled_is_not_waited_for_where_it_hangs(disk: Disk) -> None:
    asked = start_task(in_thread(disk.read), "reads")
    await until(lambda: disk.asked)
    began = time.monotonic()
    await end_tasks(asked)
    disk.mended.set()
    assert 0.1 <= time.monotonic() - began < 5
    assert asked.cancelled()


@pytest.mark.parametrize("first", [True, False])
async def test_what_is_cancelled_is_done_first_or_goes_on_by_itself(
    disk: Disk, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    monkeypatch.setattr(supervision, "PATIENCE", 20.0)
    work: Any = in_thread(disk.read) if first else in_thread_of(threads, disk.read)
    asked = start_task(work, "reads")
    await until(lambda: disk.asked)
    ending = start_task(end_tasks(asked), "end it")
    await asyncio.sleep(0.05)
    assert asked.done() is not first
    disk.mended.set()
    await ending
    assert asked.cancelled()
