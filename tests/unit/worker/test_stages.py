"""How the stages of a run are named in its error, and what its timeout counts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.model.documents import RunUsage
from shared.model.language import SmallTask, TaskDefinition
from tests.unit.worker.sinks import NoLog
from tests.unit.worker.test_host_folders import nest
from worker.runtime import stages
from worker.runtime.port import Assignment
from worker.runtime.stages import Exit, StagedRun, Tail
from worker.runtime.task_folder import remove_folder


class Staged(StagedRun):
    """A run of which each stage ends with the exit code that its script is."""

    folder: Path | None = None

    def __init__(self, task: TaskDefinition, scratch: int = 0) -> None:
        assignment = Assignment(
            task_id="t", job_id="j", node_id="n", nonce="x", attempt=1, task=task
        )
        super().__init__(assignment, NoLog(), timeout=0, stop_timeout=1, scratch=scratch)
        self.indices: list[int] = []

    async def _prepare(self) -> None:
        pass

    async def _stage(self, index: int, small: SmallTask) -> Exit:
        self.indices.append(index)
        return Exit(int(small.run), Tail())

    async def _main(self) -> Exit:
        return Exit(0, Tail())

    async def _result(self) -> str:
        return ""

    async def _settle(self) -> RunUsage | None:
        return None

    def _own_folder(self) -> Path | None:
        return self.folder

    async def remove(self) -> None:
        pass


@pytest.mark.parametrize(
    ("pre", "post", "error"),
    [
        ("01", "", "pre task 2: exit code 1"),
        ("00", "1", "post task 1: exit code 1"),
        ("00", "001", "post task 3: exit code 1"),
    ],
)
async def test_stages_without_a_name_are_counted_each_kind_for_itself(
    pre: str, post: str, error: str
) -> None:
    task = TaskDefinition(
        pre=[SmallTask(run=code) for code in pre], post=[SmallTask(run=code) for code in post]
    )
    run = Staged(task)
    assert (await run.run()).error == error
    assert run.indices == list(range(len(run.indices))), "each has a number of its own"


class Slow(Staged):
    """A run of which each part takes some time."""

    def __init__(self, timeout: str, preparing: float = 0.0, main: float = 0.0) -> None:
        super().__init__(TaskDefinition(run="true", timeout=timeout))
        self._preparing, self._main_takes = preparing, main

    async def _prepare(self) -> None:
        await asyncio.sleep(self._preparing)

    async def _main(self) -> Exit:
        await asyncio.sleep(self._main_takes)
        return Exit(0, Tail())


async def test_a_timeout_does_not_count_the_wait_for_a_grant() -> None:
    run = Slow("300ms", main=0.1)
    await run.prepare()
    await asyncio.sleep(0.4)
    assert (await run.run()).error is None


async def test_a_timeout_counts_what_preparing_took() -> None:
    run = Slow("600ms", preparing=0.4, main=0.4)
    await run.prepare()
    assert (await run.run()).error == "timed out after 600ms"


TOO_MANY = (
    "/tork holds more than the 1 MiB that this worker allows (worker.limits.scratch): 301 files, of which each counts "
    "as 4 KiB at least"
)


class Clock:
    """Stands for the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Endless(Staged):
    """A run whose main process goes on until it is ended."""

    async def _main(self) -> Exit:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(
    ("depth", "files", "error"),
    [
        pytest.param(
            1_010,
            0,
            "/tork holds folders more than 1,000 deep in one another",
            marks=pytest.mark.slow,
        ),
        (
            0,
            300,
            TOO_MANY,
        ),
    ],
)
async def test_too_much_in_a_folder_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int, files: int, error: str
) -> None:
    monkeypatch.setattr(stages, "MEASURE_INTERVAL", 0.01)
    nest(tmp_path, depth)
    for number in range(files):
        (tmp_path / str(number)).touch()
    run = Endless(TaskDefinition(), scratch=2**20 if files else 2**30)
    run.folder = tmp_path
    await run.prepare()
    outcome = await asyncio.wait_for(run.run(), 20)
    assert remove_folder(tmp_path)
    assert outcome.error == error


async def test_measuring_keeps_no_thread_from_what_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MEASURE_INTERVAL", 0.01)
    goes_on = threading.Event()

    def size_of(*_: object) -> tuple[int, int]:
        goes_on.wait(20)
        return 0, 0

    monkeypatch.setattr(stages, "size_of", size_of)
    runs = [Endless(TaskDefinition(), scratch=1) for _ in range(64)]
    ends = []
    for run in runs:
        run.folder = tmp_path
        await run.prepare()
        ends.append(asyncio.create_task(run.run()))
    await asyncio.sleep(0.2)  # all are being measured, or wait for it
    try:
        await asyncio.wait_for(asyncio.to_thread(int), 2)
    finally:
        goes_on.set()
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


@pytest.mark.parametrize(("queued", "took", "pause"), [(30.0, 0.5, 5.0), (0.0, 3600.0, 60.0)])
async def test_the_pause_between_measurings_is_by_what_they_take(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    queued: float,
    took: float,
    pause: float,
) -> None:
    clock, pauses = Clock(), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            await asyncio.Event().wait()

    async def in_thread_of(_: object, measure: Callable[..., object], *args: object) -> object:
        clock.now += queued
        return measure(*args)

    def size_of(*_: object) -> tuple[int, int]:
        clock.now += took
        return 0, 0

    run = Endless(TaskDefinition(), scratch=1)
    run.folder = tmp_path
    monkeypatch.setattr(stages, "size_of", size_of)
    monkeypatch.setattr(stages, "in_thread_of", in_thread_of)
    monkeypatch.setattr(stages, "time", clock)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(run._overfull(), 0.1)
    assert pauses == [stages.MEASURE_INTERVAL, pause]
