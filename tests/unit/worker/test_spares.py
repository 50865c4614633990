"""Folders of runs that are used again: only those that a run cannot have prepared for the next one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config import Config
from shared.model.language import TaskDefinition
from tests.unit.worker.engines import assignment
from tests.unit.worker.sinks import NoLog
from worker.runtime import task_folder
from worker.runtime.host_paths import HostPaths
from worker.runtime.shell.runtime import (
    KEPT_FOLDERS,
    MAIN_FOLDER,
    FolderPool,
    HostWorkdir,
    ShellRun,
)
from worker.runtime.shell.supervisors import Supervisors
from worker.runtime.task_folder import OUTPUT_FILE, PROGRESS_FILE, SCRIPT_FILE, WORKDIR_FOLDER


def made(spares: FolderPool, folder: Path, script: str = "true") -> Path:
    """A run's folder as a run finds it."""
    spares.make(folder, script)
    HostWorkdir("").make(folder / MAIN_FOLDER / WORKDIR_FOLDER, {})
    return folder / MAIN_FOLDER


def look(main: Path) -> dict[str, tuple[int, bytes]]:
    """What is in it: modes and contents."""
    return {
        path.name: (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in main.iterdir()
    }


def test_a_folder_is_used_again_as_if_it_were_new(tmp_path: Path) -> None:
    spares = FolderPool()
    main = made(spares, tmp_path / "a", "echo one")
    new, first = look(main), main.stat().st_ino
    (main / OUTPUT_FILE).write_text("said")
    (main / PROGRESS_FILE).write_text("50")
    spares.give_back(tmp_path / "a")
    again = made(spares, tmp_path / "b", "echo two")
    assert again.stat().st_ino == first
    assert not (tmp_path / "a").exists()
    assert look(again) == new | {SCRIPT_FILE: (new[SCRIPT_FILE][0], b"echo two")}
    spares.give_back(tmp_path / "b")
    bare = made(spares, tmp_path / "c", "")
    assert bare.stat().st_ino == first
    assert set(look(bare)) == {OUTPUT_FILE, PROGRESS_FILE, WORKDIR_FOLDER}


def left(main: Path) -> None:
    (main / "left").write_text("")


def left_in_workdir(main: Path) -> None:
    (main / WORKDIR_FOLDER / "left").write_text("")


def left_beside(main: Path) -> None:
    (main.parent / "left").mkdir()


def output_gone(main: Path) -> None:
    (main / OUTPUT_FILE).unlink()


def output_linked(main: Path) -> None:
    (main.parent.parent / "host").write_text("precious")
    (main / OUTPUT_FILE).unlink()
    (main / OUTPUT_FILE).symlink_to(main.parent.parent / "host")


def output_reachable_elsewhere(main: Path) -> None:
    os.link(main / OUTPUT_FILE, main.parent.parent / "mine")


def host_file_as_output(main: Path) -> None:
    (main.parent.parent / "host").write_text("precious")
    (main / PROGRESS_FILE).unlink()
    os.link(main.parent.parent / "host", main / PROGRESS_FILE)


def pipe_as_output(main: Path) -> None:
    (main / OUTPUT_FILE).unlink()
    os.mkfifo(main / OUTPUT_FILE, 0o666)


def another_mode(main: Path) -> None:
    (main / OUTPUT_FILE).chmod(0o600)


def closed_workdir(main: Path) -> None:
    (main / WORKDIR_FOLDER).chmod(0o700)


def closed_folder(main: Path) -> None:
    main.chmod(0o1777)


def workdir_linked(main: Path) -> None:
    (main / WORKDIR_FOLDER).rmdir()
    (main.parent.parent / "else").mkdir()
    (main / WORKDIR_FOLDER).symlink_to(main.parent.parent / "else")


def script_replaced_by_a_folder(main: Path) -> None:
    (main / SCRIPT_FILE).unlink()
    (main / SCRIPT_FILE).mkdir()


@pytest.mark.parametrize(
    "change",
    [
        left,
        left_in_workdir,
        left_beside,
        output_gone,
        output_linked,
        output_reachable_elsewhere,
        host_file_as_output,
        pipe_as_output,
        another_mode,
        closed_workdir,
        closed_folder,
        workdir_linked,
        script_replaced_by_a_folder,
    ],
    ids=lambda change: change.__name__,
)
def test_a_folder_that_a_run_has_changed_is_not_kept(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    spares = FolderPool()
    new = look(made(spares, tmp_path / "a"))
    change(tmp_path / "a" / MAIN_FOLDER)
    assert not spares.give_back(tmp_path / "a")
    assert look(made(spares, tmp_path / "b")) == new
    host = tmp_path / "host"
    assert not host.exists() or host.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", [OUTPUT_FILE, PROGRESS_FILE, WORKDIR_FOLDER, "."])
def test_what_belongs_to_somebody_else_is_not_kept(name: str, tmp_path: Path) -> None:
    spares = FolderPool()
    os.chown(made(spares, tmp_path / "a") / name, 12345, -1)
    assert not spares.give_back(tmp_path / "a")


def test_no_more_are_kept_than_that_and_none_in_the_end(tmp_path: Path) -> None:
    spares = FolderPool()
    for number in range(KEPT_FOLDERS + 2):
        made(spares, tmp_path / str(number))
    kept = [spares.give_back(tmp_path / str(number)) for number in range(KEPT_FOLDERS + 2)]
    assert kept == [True] * KEPT_FOLDERS + [False] * 2
    spares.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kept_folder_that_is_gone_is_made(tmp_path: Path) -> None:
    spares = FolderPool()
    new = look(made(spares, tmp_path / "a"))
    spares.give_back(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "swept")
    assert look(made(spares, tmp_path / "b")) == new


async def test_a_folder_that_is_kept_waits_for_none_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, remove = threading.Event(), task_folder.remove_folder

    def remove_folder(folder: Path) -> bool:
        return goes_on.wait(20) and remove(folder)

    monkeypatch.setattr(task_folder, "remove_folder", remove_folder)
    spares, keepers = FolderPool(), Supervisors()

    async def prepared(name: str) -> ShellRun:
        task = assignment(TaskDefinition(run="true"))
        run = ShellRun(task, NoLog(), Config(), keepers, spares, HostPaths(), tmp_path / name)
        await run.prepare()
        return run

    kept, changed = await prepared("kept"), [await prepared(name) for name in "abc"]
    for name in "abc":
        left(tmp_path / name / MAIN_FOLDER)
    removals = [asyncio.create_task(run.remove()) for run in changed]
    await asyncio.sleep(0.1)
    try:
        await asyncio.wait_for(kept.remove(), 2)
    finally:
        goes_on.set()
        await asyncio.gather(*removals)
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["kept"]
