"""Paths that tasks name may hang, on a dead file server's disk perhaps: that holds up nobody who names another one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from shared import supervision
from shared.config import Config
from shared.config.schema import RuntimeSettings, Shell, WorkerSettings
from shared.model.language import Mount, TaskDefinition
from shared.supervision import Loop, Supervision, end_tasks, present, start_task, stuck_loops
from shared.threads import in_thread
from tests.unit.worker.engines import assignment, context
from tests.unit.worker.sinks import NoLog
from worker.runtime import host_paths
from worker.runtime.docker.binds import BindRules
from worker.runtime.docker.container_spec import host_path
from worker.runtime.docker.resources import Maker
from worker.runtime.docker.runtime import DockerRuntime
from worker.runtime.host_paths import PATH_THREADS, PATH_THREADS_OF_DISK, HostPaths, disk_of
from worker.runtime.port import Assignment, PathHangsError
from worker.runtime.shell.runtime import HostWorkdir, ShellRuntime

SOON = 0.3
PATIENCE = 10.0


class DeadServer:
    """A disk that hangs until its server is back."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.back = threading.Event()

    def hung(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that hangs where one of its arguments is on the disk."""

        def asks(*args: Any, **kwargs: Any) -> Any:
            told = (*args, *(str(arg) for arg in kwargs.values()))
            if any(f"{self.top}/" in str(each) for each in told):
                assert self.back.wait(2 * PATIENCE)
            return function(*args, **kwargs)

        return asks


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadServer]:
    made = DeadServer(tmp_path / "dead")
    made.top.mkdir()
    monkeypatch.setattr(os.path, "realpath", made.hung(os.path.realpath))
    monkeypatch.setattr(os.path, "isdir", made.hung(os.path.isdir))
    monkeypatch.setattr(os, "unlink", made.hung(os.unlink))
    monkeypatch.setattr(subprocess, "run", made.hung(subprocess.run))
    yield made
    made.back.set()


@pytest.fixture(autouse=True)
async def few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small machine, whose paths have to answer soon."""
    monkeypatch.setattr(host_paths, "PATH_ANSWERS_WITHIN", SOON)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))


@pytest.fixture
async def paths() -> AsyncIterator[HostPaths]:
    made = HostPaths()
    yield made
    await made.close()


async def until(holds: Callable[[], object]) -> None:
    """Wait for something."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- threads ----------------------------------------------------------------------------------------------------------


def by_first_name(path: str) -> str:
    return path.split("/")[1]


@pytest.fixture
def named_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths whose first name is that of their disk."""
    monkeypatch.setattr(host_paths, "disk_of", by_first_name)


@pytest.mark.usefixtures("named_disks")
async def test_a_disk_that_hangs_holds_up_only_those_who_ask_for_it(paths: HostPaths) -> None:
    back = threading.Event()
    more = 5
    asked = [paths.ask(f"/a/{n}", f"/a/{n}", back.wait) for n in range(PATH_THREADS_OF_DISK + more)]
    asking = asyncio.gather(*asked, return_exceptions=True)
    await asyncio.sleep(SOON / 3)
    assert await paths.ask("/b/x", "/b/x", lambda: "answers") == "answers"
    said = sorted(str(error) for error in await asking)
    assert said == [
        *(
            f"/a/{n} has not answered for {SOON:g} s: the disk that it is on hangs"
            for n in range(PATH_THREADS_OF_DISK)
        ),
        *(
            f"/a/{n} can't be looked at: other paths have not answered for {SOON:g} s"
            for n in range(PATH_THREADS_OF_DISK, PATH_THREADS_OF_DISK + more)
        ),
    ]
    back.set()
    assert await paths.ask("/a/x", "/a/x", lambda: "answers") == "answers"


@pytest.mark.usefixtures("named_disks")
async def test_where_all_threads_hang_the_rest_is_refused_until_one_is_free(
    paths: HostPaths,
) -> None:
    back, asked = threading.Event(), []

    def ask() -> None:
        asked.append(back.wait())

    for _ in range(3):
        began = time.monotonic()
        failed = await asyncio.gather(
            *(paths.ask(f"/{n}", "it", ask) for n in range(3 * PATH_THREADS)),
            return_exceptions=True,
        )
        assert all(isinstance(error, PathHangsError) for error in failed)
        assert SOON <= time.monotonic() - began < 10 * SOON, "no loop of hand-backs is tight"
    back.set()
    await until(lambda: len(asked) == PATH_THREADS)
    assert await paths.ask("/x", "it", lambda: "answers") == "answers"
    assert len(asked) == PATH_THREADS, "nothing is begun for which nobody waits any more"


@pytest.mark.parametrize("how", ["given up", "cancelled"])
async def test_what_is_done_too_late_is_undone(paths: HostPaths, how: str) -> None:
    back, begun, undone = threading.Event(), threading.Event(), threading.Event()

    def do() -> None:
        begun.set()
        assert back.wait(PATIENCE)

    asking = start_task(paths.ask("/x", "it", do, undone.set), "ask")
    await until(begun.is_set)
    if how == "cancelled":
        await end_tasks(asking)
    else:
        with pytest.raises(PathHangsError):
            await asking
    assert not undone.is_set()
    back.set()
    await until(undone.is_set)


async def test_what_is_done_in_the_moment_in_which_it_is_given_up_is_undone(
    paths: HostPaths,
) -> None:
    undone: list[str] = []
    begun, back = threading.Event(), threading.Event()

    def do() -> None:
        begun.set()
        assert back.wait(PATIENCE)

    asking = start_task(paths.ask("/x", "it", do, partial(undone.append, "x")), "ask")
    await until(begun.is_set)
    back.set()
    time.sleep(0.1)  # noqa: ASYNC251  # the thread is through; the loop has not heard of it
    await end_tasks(asking)
    await until(lambda: undone)
    await asyncio.sleep(0.1)
    assert undone == ["x"]


async def test_what_is_done_in_time_is_not_undone_and_fails_as_it_does(paths: HostPaths) -> None:
    undone: list[str] = []
    assert await paths.ask("/x", "it", lambda: 1, partial(undone.append, "x")) == 1
    with pytest.raises(ZeroDivisionError):
        await paths.ask("/x", "it", lambda: 1 // 0, partial(undone.append, "x"))
    assert not undone


async def test_no_loop_is_stuck_because_of_a_path(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "PATIENCE", 0.1)
    monkeypatch.setattr(supervision, "LIVE_WITHIN", 0.2)
    token = present.set(Supervision())
    back, refused = threading.Event(), asyncio.Event()

    async def work() -> None:
        with pytest.raises(PathHangsError):
            await paths.ask("/x", "it", back.wait)
        refused.set()
        with supervision.waiting():
            await asyncio.Event().wait()

    async with Loop("slot", work, patience=0.1):
        async with asyncio.timeout(PATIENCE):
            while not refused.is_set():
                assert stuck_loops() == []
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert stuck_loops() == []
        assert not present.get().restarts
    back.set()
    present.reset(token)


def test_the_disk_of_a_path_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = [SimpleNamespace(mountpoint=point) for point in ("/", "/mnt", "/mnt/a", "/mnt/ab")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounted)
    assert disk_of("/mnt/a/x/../y") == "/mnt/a"
    assert disk_of("/mnt/abc") == "/mnt"
    assert disk_of("/mnt/ab") == "/mnt/ab"
    assert disk_of("/srv/x") == "/srv/x", "on the root's disk a link may lead to any other"


# --- tasks ------------------------------------------------------------------------------------------------------------


async def test_binds_that_hang_hold_up_nothing_else(tmp_path: Path, server: DeadServer) -> None:
    engine = SimpleNamespace(create_volume=lambda *_: None, remove_volume=lambda *_: None)
    services = context(tmp_path, engine)
    services.bind_rules = BindRules(True, (), None, tmp_path / "worker", True, True)
    (tmp_path / "alive").mkdir()

    def maker(source: str) -> Maker:
        mounts = [
            Mount(type="tmpfs", target="/t"),
            Mount(type="bind", source=source, target="/d"),
            Mount(type="volume", target="/v"),
        ]
        return Maker(assignment(TaskDefinition(mounts=mounts)), NoLog(), services)

    hung = [maker(f"{server.top}/{n}") for n in range(8)]
    making = asyncio.gather(*(each.common() for each in hung), return_exceptions=True)
    await asyncio.sleep(SOON / 3)
    async with asyncio.timeout(SOON / 2):
        await in_thread(services.folders.check)
    alive = maker(str(tmp_path / "alive"))
    assert len((await alive.common()).mounted.mounts) == 2
    await alive.remove()
    errors = await making
    assert all(isinstance(error, PathHangsError) for error in errors)
    assert str(errors[0]).startswith(f"mounts[1]: the source {server.top}/0 has not answered")
    for each in hung:
        await each.remove()


def test_what_names_a_path_of_the_host() -> None:
    assert host_path(Mount(type="bind", source="/a", target="/d")) == "/a"
    options = {"type": "none", "o": "ro, RBIND", "device": "/a"}
    assert host_path(Mount(type="volume", target="/d", opts=options)) == "/a"
    assert host_path(Mount(type="volume", target="/d", opts={"device": "/a"})) == ""
    assert host_path(Mount(type="tmpfs", target="/d")) == ""


async def test_a_listed_path_that_hangs_keeps_no_worker_from_starting(
    tmp_path: Path, server: DeadServer
) -> None:
    runtime = DockerRuntime(Config(), "node")
    (tmp_path / "link").symlink_to(tmp_path)
    listed = await asyncio.gather(
        *(runtime._listed(str(each)) for each in (server.top / "x", tmp_path / "link"))
    )
    assert [each.real for each in listed] == [server.top / "x", tmp_path]


# --- workdir ----------------------------------------------------------------------------------------------------------

NOBODY = 65534
USERS = [
    pytest.param(None, id="the worker's own user"),
    pytest.param(
        NOBODY,
        id="another user",
        marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    ),
]


@pytest.fixture(params=USERS)
async def shell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ShellRuntime]:
    """A runtime whose tasks run as either user."""
    top = Path(tempfile.gettempdir())
    for folder in (tmp_path, *(each for each in tmp_path.parents if top in each.parents)):
        folder.chmod(0o755)
    config = Config(
        runtime=RuntimeSettings(shell=Shell(ignore_image=True, uid=request.param)),
        worker=WorkerSettings(data=str(tmp_path / "worker")),
    )
    made = ShellRuntime(config, "node")
    await made.start()
    yield made
    await made.close()


def in_workdir(folder: Path) -> Assignment:
    """A task that wants a folder made, with a file in it."""
    return assignment(TaskDefinition(workdir=str(folder), files={"f": "x"}, run="cat f"))


async def test_workdirs_that_hang_hold_up_nothing_else(
    shell: ShellRuntime, server: DeadServer, tmp_path: Path
) -> None:
    server.top.chmod(0o777)
    hung = asyncio.gather(
        *(shell.prepare(in_workdir(server.top / str(n)), NoLog()) for n in range(4))
    )
    await asyncio.sleep(SOON / 3)
    async with asyncio.timeout(SOON / 2):
        await shell.ping()
    alive = tmp_path / "alive"
    alive.mkdir(mode=0o777)
    alive.chmod(0o777)
    for folder in ("", "inner/most", str(alive / "made")):
        task = TaskDefinition(workdir=folder, files={"f": "x"}, run="cat f > $TORK_OUTPUT")
        run = await shell.prepare(assignment(task), NoLog())
        assert (await run.run()).result == "x"
        await run.remove()
    assert not list(alive.iterdir())
    for number, run in enumerate(await hung):
        outcome = await run.run()
        assert (outcome.lost, outcome.unprepared) == (True, False)
        assert outcome.error is not None
        assert outcome.error.startswith(f"workdir: {server.top}/{number} has not answered for")
        async with asyncio.timeout(PATIENCE):
            await run.remove()


async def test_what_a_workdir_gets_too_late_is_removed(
    shell: ShellRuntime, server: DeadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored = 0
    restore = HostWorkdir.restore

    def counted(workdir: HostWorkdir) -> None:
        nonlocal restored
        restore(workdir)
        restored += 1

    monkeypatch.setattr(HostWorkdir, "restore", counted)
    server.top.chmod(0o777)
    run = await shell.prepare(in_workdir(server.top / "made"), NoLog())
    assert (await run.run()).lost
    await run.remove()
    server.back.set()
    await until(lambda: restored)
    await until(lambda: not list(server.top.iterdir()))


async def test_a_disk_that_hangs_under_files_that_were_made_holds_up_no_removal(
    shell: ShellRuntime, server: DeadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.top.chmod(0o777)
    server.back.set()
    with monkeypatch.context() as patient:
        patient.setattr(host_paths, "PATH_ANSWERS_WITHIN", PATIENCE)
        run = await shell.prepare(in_workdir(server.top / "made"), NoLog())
    assert (server.top / "made/f").exists()
    server.back.clear()
    async with asyncio.timeout(PATIENCE):
        await run.remove()
    async with asyncio.timeout(PATIENCE):
        await shell.ping()
    assert (server.top / "made/f").exists()
    server.back.set()
    await until(lambda: not list(server.top.iterdir()))
