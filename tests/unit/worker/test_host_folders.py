"""What tasks leave on their host, and what others on it can do with that."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config import Config
from shared.config.schema import RuntimeSettings, Shell, WorkerSettings
from tests.contract.runtime_runs import Log, Subject
from worker.runtime import task_folder
from worker.runtime.port import TaskError
from worker.runtime.shell.runtime import (
    MAIN_FOLDER,
    FolderPool,
    HostWorkdir,
    ShellRuntime,
    TaskUser,
)
from worker.runtime.task_folder import Folders

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def nest(folder: Path, depth: int, name: str = "d") -> None:
    """Make folders in one another, deeper than any path can name."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, 0o000 if os.geteuid() == 0 else 0o700, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o000, dir_fd=at))
    os.close(at)


def test_a_folder_is_removed_whatever_its_depth(folder: Path) -> None:
    left = folder / "left"
    left.mkdir()
    nest(left, 2_000)
    nest(left, 50, "\udcff" + "n" * 200)
    assert task_folder.remove_folder(left)
    assert not left.exists()


def test_nothing_outside_a_removed_folder_is_touched(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir(mode=0o750)
    (host / "precious").write_text("x")
    left = tmp_path / "left"
    (left / "a/b").mkdir(parents=True)
    (left / "to-folder").symlink_to(host)
    (left / "a/b/up").symlink_to("../../../host")
    os.mkfifo(left / "a/pipe")
    os.link(host / "precious", left / "a/hard")
    assert task_folder.remove_folder(left)
    assert (host / "precious").read_text() == "x"
    assert host.stat().st_mode & 0o777 == 0o750
    link = tmp_path / "link"
    link.symlink_to(host)
    task_folder.remove_folder(link)
    assert (host / "precious").exists()


def test_what_a_dead_node_left_is_swept_whatever_its_depth(folder: Path) -> None:
    folders = Folders(str(folder), "mine")
    folders.open()
    dead = folders.top / "dead/run"
    dead.mkdir(parents=True)
    nest(dead, 2_000)
    assert folders.remove_all("dead") == 1
    assert folders.owners() == {"mine"}


@pytest.mark.slow
def test_files_in_very_many_folders(folder: Path) -> None:
    name = "a/" * 1_500 + "f"
    task_folder.write_files(folder / "docker", {name: "x"})
    assert (folder / "docker" / name).read_text() == "x"
    workdir = HostWorkdir("")
    workdir.make(folder / "shell", {name: "x"})
    assert (folder / "shell" / name).read_text() == "x"
    workdir.restore()
    with pytest.raises(OSError, match="File name too long"):
        task_folder.write_files(folder / "docker", {"a/" * 2_500 + "f": "x"})
    for left in ("docker", "shell"):  # or pytest itself could not
        assert task_folder.remove_folder(folder / left)


def test_no_file_has_a_name_that_cannot_be_encoded(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no file's name can have"):
        task_folder.write_files(tmp_path, {"\ud800": "x"})


@as_root
def test_a_set_uid_file_of_a_task_is_of_no_use_to_others(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    folders = Folders(str(tmp_path / "data"), "node")
    folders.open()
    run = folders.new() / "main"
    task_folder.make(run, "")
    program = run / "id"
    program.write_bytes(Path("/usr/bin/id").resolve().read_bytes())
    program.chmod(0o4755)
    assert ran_by_nobody(str(program)) == "PermissionError"
    folders.top.chmod(0o711)
    folders.mine.chmod(0o711)
    assert ran_by_nobody(str(program)) == "ran"  # so it was the folders' modes that kept them out


def ran_by_nobody(program: str) -> str:
    script = (
        "import os, subprocess, sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n  subprocess.run([sys.argv[1]], check=True, stdout=subprocess.DEVNULL); print('ran')\n"
        "except Exception as error:\n  print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def main_group(uid: int) -> int:
    return pwd.getpwuid(uid).pw_gid


def put_in_place_of_the_output(data: Path, other: Path, put: Callable[[Path, Path], None]) -> None:
    (output,) = data.glob("runs/*/*/main/stdout")
    output.unlink()
    put(other, output)


class TestFilesOfAnotherUser:
    """`runtime.shell.uid`: the worker is root, its tasks are not."""

    pytestmark = as_root

    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        top = Path(tempfile.gettempdir())
        for folder in (tmp_path, *(each for each in tmp_path.parents if top in each.parents)):
            folder.chmod(0o755)
        return tmp_path / "own"

    def test_roots_files_are_neither_replaced_nor_removed(self, tmp_path: Path, own: Path) -> None:
        host = tmp_path / "host"
        host.mkdir()
        (host / "passwd").write_text("root's")
        for name in ("passwd", "new", "new/deep/er"):
            workdir = HostWorkdir(str(host), TaskUser(NOBODY, NOBODY))
            with pytest.raises(OSError, match=r"already|Permission denied"):
                workdir.make(own, {name: "task's"})
            workdir.restore()
        assert (host / "passwd").read_text() == "root's"
        assert [path.name for path in host.iterdir()] == ["passwd"]

    def test_no_link_leads_to_roots_files(self, tmp_path: Path, own: Path) -> None:
        host, shared = tmp_path / "host", tmp_path / "shared"
        host.mkdir()
        shared.mkdir()
        shared.chmod(0o777)
        (shared / "sub").symlink_to(host)
        workdir = HostWorkdir(str(shared), TaskUser(NOBODY, NOBODY))
        with pytest.raises(OSError, match="Permission denied"):
            workdir.make(own, {"sub/f": "x"})
        assert not list(host.iterdir())

    def test_they_are_the_users(self, tmp_path: Path, own: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        workdir = HostWorkdir(f"{shared}/made", TaskUser(NOBODY, NOBODY))
        workdir.make(own, {"f": "x"})
        assert (shared / "made/f").stat().st_uid == NOBODY
        workdir.restore()
        assert not list(shared.iterdir())

    @pytest.mark.parametrize(
        ("uid", "gid", "group"),
        [(2, None, main_group(2)), (4, None, main_group(4)), (12345, None, 12345), (2, 7, 7)],
    )
    async def test_without_a_group_they_are_in_the_users_own(
        self, own: Path, uid: int, gid: int | None, group: int
    ) -> None:
        """The main group of user 4 seldom has that number; 12345 is nobody's."""
        config = Config(
            runtime=RuntimeSettings(shell=Shell(uid=uid, gid=gid)),
            worker=WorkerSettings(data=str(own)),
        )
        runtime = ShellRuntime(config, "node")
        await runtime.start()
        try:
            subject = Subject("shell", runtime, "node")
            ran = await subject.ran(
                run="id -u; id -g; id -G; stat -c %u:%g file", files={"file": "x"}
            )
        finally:
            await runtime.close()
        assert ran.outcome.error is None, ran.log.text
        assert ran.log.text.split() == [str(uid), str(group), str(group), f"{uid}:{group}"]

    @pytest.mark.parametrize(("uid", "home"), [(2, pwd.getpwuid(2).pw_dir), (12345, "/")])
    async def test_the_host_is_asked_for_their_home_at_the_start_and_not_by_each_task(
        self, own: Path, uid: int, home: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = Config(
            runtime=RuntimeSettings(shell=Shell(uid=uid)), worker=WorkerSettings(data=str(own))
        )
        runtime = ShellRuntime(config, "node")
        await runtime.start()
        monkeypatch.setattr("pwd.getpwuid", lambda _: pytest.fail("the host is asked again"))
        try:
            ran = await Subject("shell", runtime, "node").ran(run="echo $HOME")
        finally:
            await runtime.close()
        assert ran.log.text.strip() == home

    async def test_they_do_not_see_the_workers_environment(self, own: Path) -> None:
        config = Config(
            runtime=RuntimeSettings(shell=Shell(uid=NOBODY)), worker=WorkerSettings(data=str(own))
        )
        runtime = ShellRuntime(config, "node")
        await runtime.start()
        try:
            subject = Subject("shell", runtime, "node")
            ran = await subject.ran(
                run="p=$PPID; echo begin\n"
                f"while [ $p != {os.getpid()} ]; do p=$(awk '/^PPid/ {{ print $2 }}' /proc/$p/status)\n"
                "head -c 1 /proc/$p/environ >/dev/null 2>&1 && echo read; done; echo end"
            )
        finally:
            await runtime.close()
        assert ran.log.text.split() == ["begin", "end"]

    @pytest.mark.parametrize("how", ["link", "rename"])
    async def test_a_file_that_only_the_worker_may_read_is_no_output(
        self, own: Path, how: str
    ) -> None:
        """As a task could put it there where `fs.protected_hardlinks` is 0, or from a folder that it may write to."""
        config = Config(
            runtime=RuntimeSettings(shell=Shell(uid=NOBODY)), worker=WorkerSettings(data=str(own))
        )
        runtime = ShellRuntime(config, "node")
        await runtime.start()
        secret = own / "secret"
        secret.write_text("root's")
        secret.chmod(0o600)
        try:
            subject = Subject("shell", runtime, "node")
            async with subject.prepared(Log(), run="true") as run:
                put_in_place_of_the_output(own, secret, getattr(os, how))
                outcome = await run.run()
            linked = await subject.ran(run="echo mine >f; ln -f f $TORK_OUTPUT")
        finally:
            await runtime.close()
        assert outcome.error == "the output is a file of another user than the task's"
        assert linked.outcome.result == "mine\n"

    def test_a_runs_folder_is_entered_by_its_group_alone(self, tmp_path: Path) -> None:
        spares = FolderPool(NOBODY)
        spares.make(tmp_path / "run", "true")
        status = (tmp_path / "run").stat()
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o710, 0, NOBODY)
        assert (tmp_path / "run" / MAIN_FOLDER / "entrypoint").exists()


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    workdir = HostWorkdir(str(tmp_path))
    with pytest.raises(FileExistsError, match="already"):
        workdir.make(tmp_path / "own", {"g": "", "f": "task's"})
    workdir.restore()
    assert (tmp_path / "f").read_text() == "mine"
    assert not (tmp_path / "g").exists()
    again = HostWorkdir(str(tmp_path))
    again.make(tmp_path / "own", {"f": "mine"})
    again.restore()
    assert (tmp_path / "f").read_text() == "mine"
