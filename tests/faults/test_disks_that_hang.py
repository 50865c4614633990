"""A disk hangs under a thread of a daemon: the loop that waits for it is named, and goes on once the disk is mended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from coordinator.store.sqlite.threads import Writer
from shared import supervision
from tests.faults.test_loops import WITHIN, each_kind, settings, told
from tests.faults.whole import KEY, LOG, configured, system
from worker import log_shipper
from worker.beats import WorkerBeats
from worker.log_shipper import Spool
from worker.process_folder import ProcessFolder
from worker.runtime import host_paths, task_folder
from worker.runtime.shell.host_files import HostFiles
from worker.runtime.shell.runtime import ShellRun
from worker.runtime.task_folder import Folders

__all__ = ["settings"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

OF_WORKERS = [
    (Spool, "_append", "ship a log"),
    (Spool, "_read", "ship a log"),
    (ShellRun, "_make", "slot"),
    (task_folder, "read_output", "slot"),
    (Folders, "check", "engine check"),
]
"""What touches a disk in a thread, and the loop that waits for it."""


class Disk:
    """Hangs under a function of the product, until it is mended."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._mended = threading.Event()

    def hang(self, owner: type | ModuleType, name: str) -> None:
        """Hang from now on."""
        real: Callable[..., Any] = getattr(owner, name)

        def hangs(*args: Any, **kwargs: Any) -> Any:
            assert self._mended.wait(3 * WITHIN)
            return real(*args, **kwargs)

        hangs.__qualname__ = real.__qualname__
        self._patch.setattr(owner, name, hangs)

    def mend(self) -> None:
        """Let all go on."""
        self._mended.set()

    async def aclose(self) -> None:
        """Let all go on, whatever failed."""
        self.mend()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_loop_whose_thread_hangs_is_named_in_time() -> None:
    assert supervision.PATIENCE < supervision.LIVE_WITHIN < WITHIN


@each_kind
@pytest.mark.parametrize(("owner", "name", "loop"), OF_WORKERS)
async def test_a_loop_that_waits_for_a_disk_that_hangs_is_named(
    owner: type | ModuleType,
    name: str,
    loop: str,
    settings: dict[str, str],
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_shipper, "IN_MEMORY", 0)
    async with (
        system(configured(tmp_path, settings)) as whole,
        contextlib.aclosing(disk),
        asyncio.timeout(2 * WITHIN),
    ):
        worker = whole.processes[-1]
        monkeypatch.setattr(supervision, "PATIENCE", 1.0)
        monkeypatch.setattr(supervision, "LIVE_WITHIN", 2.0)
        with capture_logs() as logged:
            hung = getattr(owner, name).__qualname__
            disk.hang(owner, name)
            job = asyncio.create_task(whole.run_job())
            said = await told(whole, worker, 503)
        assert f"waits for a thread that hangs in {hung}" in said
        assert said.startswith(loop)
        named = [entry for entry in logged if entry["event"] == "a thread hangs"]
        assert loop in {entry["loop"].split(" (")[0] for entry in named}
        disk.mend()
        assert await job == ("COMPLETED", LOG)
        assert await told(whole, worker, 200) == ""
        assert not whole.restarts, "whoever waits for a thread is not cut short"


@pytest.mark.parametrize("kind", ["standalone"])
@pytest.mark.parametrize(("owner", "name"), [(Writer, "_commit"), (Path, "exists")])
async def test_a_disk_that_hangs_under_sqlite_is_an_outage_of_the_store(
    owner: type, name: str, settings: dict[str, str], disk: Disk, tmp_path: Path
) -> None:
    async with (
        system(configured(tmp_path, settings)) as whole,
        contextlib.aclosing(disk),
        asyncio.timeout(WITHIN),
    ):
        process = whole.processes[0]
        disk.hang(owner, name)
        with capture_logs() as logged:
            assert "datastore" in await told(whole, process, 503, "/health")
            while not any(each.get("loop") == "SQLite's file" for each in logged):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await whole.health(process, "/health/live") == (200, "")
        disk.mend()
        assert await whole.run_job() == ("COMPLETED", LOG)
        assert not whole.restarts


@each_kind
async def test_a_data_folder_that_hangs_holds_up_no_run_and_is_written_to_later(
    settings: dict[str, str], disk: Disk, tmp_path: Path
) -> None:
    async with (
        system(configured(tmp_path, settings)) as whole,
        contextlib.aclosing(disk),
        asyncio.timeout(WITHIN),
    ):
        worker = whole.processes[-1]
        disk.hang(ProcessFolder, "_append")
        assert await whole.run_job() == ("COMPLETED", LOG)
        assert await whole.health(worker, "/health/live") == (200, "")
        disk.mend()
        (ends,) = (tmp_path / "worker").glob("*/ends")
        while ends.stat().st_size:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert await whole.run_job() == ("COMPLETED", LOG)


@each_kind
async def test_paths_of_tasks_that_hang_hold_up_no_other_task_and_fail_in_words(
    settings: dict[str, str], disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "PATIENCE", 1.0)
    monkeypatch.setattr(supervision, "LIVE_WITHIN", 2.0)
    monkeypatch.setattr(host_paths, "PATH_ANSWERS_WITHIN", 0.7)
    problems: list[str] = []
    monkeypatch.setattr(WorkerBeats, "host_failed", lambda _, reason: problems.append(reason))
    threads, dead = 6, tmp_path / "dead"
    dead.mkdir()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    slots = {"HAULIER_WORKER_QUEUES_DEFAULT": str(threads + 2)}
    async with (
        system(configured(tmp_path, {**settings, **slots})) as whole,
        aiohttp.ClientSession(
            whole.processes[0].url, headers={"Authorization": f"Bearer {KEY}"}
        ) as api,
        contextlib.aclosing(disk),
        asyncio.timeout(2 * WITHIN),
    ):
        worker = whole.processes[-1]
        disk.hang(HostFiles, "make")
        jobs = [await submitted(api, f"{dead}/{number}") for number in range(threads)]
        whole.pass_over(*jobs)
        assert await whole.run_job() == ("COMPLETED", LOG)
        for number, job in enumerate(jobs):
            ended = await once_ended(api, job)
            assert ended["state"] == "FAILED"
            error = ended["execution"][0]["error"]
            assert error.startswith(
                f"task redelivered too many times: workdir: {dead}/{number} has not answered for"
            )
        assert await whole.run_job() == ("COMPLETED", LOG)
        for path in ("/health", "/health/live"):
            assert await whole.health(worker, path) == (200, "")
        assert not problems, "it takes other tasks meanwhile"
        assert not whole.restarts
        disk.mend()
        assert (await once_ended(api, await submitted(api, f"{dead}/0")))["state"] == "COMPLETED"
        while any(dead.iterdir()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def submitted(api: aiohttp.ClientSession, workdir: str) -> str:
    """Submit a job whose step names a path; return its id."""
    step = {"name": "a", "image": "any", "run": "true", "workdir": workdir}
    async with api.post("/jobs", json={"name": "job", "tasks": [step]}) as answer:
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["id"])


async def once_ended(api: aiohttp.ClientSession, job: str) -> Any:
    """Return a job once it has ended."""
    while True:
        async with api.get(f"/jobs/{job}") as answer:
            found = await answer.json()
        if found["state"] in ("COMPLETED", "FAILED"):
            return found
        await asyncio.sleep(0.1)
