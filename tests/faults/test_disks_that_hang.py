"""A disk hangs under a thread of a daemon: the loop that waits for it is named, and goes on once the disk is mended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.store.sqlite.threads import Writer
from shared import supervision
from tests.faults.test_loops import WITHIN, each_kind, settings, told
from tests.faults.whole import LOG, configured, system
from worker import log_shipper
from worker.log_shipper import Spool
from worker.process_folder import ProcessFolder
from worker.runtime import task_folder
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
