"""Tasks as local processes, without isolation: for a single trusted machine (the runtime spec)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import structlog

from shared.config import Config
from shared.errors import RuntimeUnavailable
from shared.model.documents import RunUsage
from shared.model.language import SmallTask, TaskDefinition
from shared.threads import in_thread, in_thread_of
from worker.runtime import task_folder
from worker.runtime.host_paths import HostPaths
from worker.runtime.port import (
    Assignment,
    PathHangsError,
    ScarceError,
    Sink,
    TaskError,
    file_error,
)
from worker.runtime.shell import host_files
from worker.runtime.shell.host_files import HostFiles
from worker.runtime.shell.supervisors import Ending, LocalOrder, LocalProcess, Supervisors
from worker.runtime.stages import Exit, StagedRun, check_texts, following, host_names, own_names

log = structlog.get_logger(__name__)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, if the worker itself has no PATH."""


class TaskUser(msgspec.Struct, frozen=True):
    """Who a task's processes are, and their home folder. None: as the worker."""

    uid: int | None = None
    gid: int | None = None
    home: str = "/"

    @classmethod
    def configured(cls, uid: int | None, gid: int | None) -> TaskUser:
        """Return whom the settings name. Without a group it is in its own, never in root's: the one that the host has
        for it, or the one of the same number. The host is asked once and not by each task, since it may have to ask a
        directory service that takes its time."""
        try:
            known = pwd.getpwuid(os.geteuid() if uid is None else uid)
        except KeyError:
            group, home = uid, "/"
        else:
            group, home = known.pw_gid, known.pw_dir
        if uid is None or gid is not None or os.geteuid() != 0:
            return cls(uid, gid, home)
        return cls(uid, group, home)

    @property
    def is_another(self) -> bool:
        """Whether files have to be made by somebody else than the worker."""
        return os.geteuid() == 0 and (self.uid is not None or self.gid is not None)


WORKERS_OWN = TaskUser()


class ShellRun(StagedRun):
    """The port's Run as local processes; `folder` is its own, and not yet made."""

    def __init__(
        self,
        assignment: Assignment,
        sink: Sink,
        config: Config,
        keepers: Supervisors,
        spares: FolderPool,
        paths: HostPaths,
        folder: Path,
        user: TaskUser = WORKERS_OWN,
    ) -> None:
        super().__init__(
            assignment,
            sink,
            timeout=config.worker.limits.timeout,
            stop_timeout=config.runtime.stop_timeout,
            scratch=config.worker.limits.scratch,
        )
        self._shell = config.runtime.shell
        self._hostenv = config.worker.hostenv
        self._limit = config.worker.limits.output
        self._keepers = keepers
        self._spares = spares
        self._paths = paths
        self._folder = folder
        self._tork = folder / MAIN_FOLDER
        self._user = user
        self._owner = user.uid if user.is_another else None
        self._workdir = HostWorkdir(assignment.task.workdir, self._user)
        self._endings: list[Ending] = []
        self._untidy = False

    def _own_folder(self) -> Path:
        return self._folder

    async def _prepare(self) -> None:
        task = self.assignment.task
        refuse_unsupported(task, ignore_image=self._shell.ignore_image)
        await self._make_both(self._tork, task, self._workdir)

    async def _stage(self, index: int, small: SmallTask) -> Exit:
        folder = self._folder / str(index)
        workdir = HostWorkdir("", self._user)
        await self._patiently(partial(self._make_both, folder, small, workdir))
        return await self._process(small, folder, workdir)

    async def _main(self) -> Exit:
        async with following(self._progress, self.sink):
            return await self._process(self.assignment.task, self._tork, self._workdir)

    async def _result(self) -> str:
        path = self._tork / task_folder.OUTPUT_FILE
        try:
            return await in_thread(task_folder.read_output, path, self._limit, self._owner)
        except OSError as error:
            raise file_error(error, "the output cannot be read") from None

    async def _settle(self) -> RunUsage | None:
        if not self._endings:
            return None
        return RunUsage(
            wall_seconds=sum(ending.wall for ending in self._endings),
            cpu_seconds=sum(ending.cpu for ending in self._endings),
            peak_memory_bytes=max(ending.memory for ending in self._endings),
        )

    async def remove(self) -> None:
        """Give the folder back for another run, or remove it where that cannot be."""
        if not (await self._restored() and await in_thread(self._give_back)):
            await in_thread_of(task_folder.REMOVING, task_folder.remove_folder, self._folder)

    # --- inside ---

    async def _restored(self) -> bool:
        """Take away what was made where the task wanted its working directory; False where that is yet to come."""
        if self._workdir.is_busy:  # its thread was given up, and will undo what it does
            return False
        path = self._workdir.path_from(self._tork / task_folder.WORKDIR_FOLDER)
        if not self._workdir.is_made or path.is_relative_to(self._folder):
            return True
        try:
            await self._paths.ask(str(path), f"workdir: {path}", self._workdir.restore)
        except PathHangsError as error:
            log.warning("a task's files may be left", reason=str(error))
            return False
        return True

    def _give_back(self) -> bool:
        self._workdir.restore()
        return not self._untidy and self._spares.give_back(self._folder)

    async def _process(self, small: SmallTask, folder: Path, workdir: HostWorkdir) -> Exit:
        order = self._order(small, folder, workdir)
        return await self._attend(await self._patiently(partial(self._begin, order)))

    async def _begin(self, order: LocalOrder) -> LocalProcess:
        try:
            return await self._keepers.begin(order)
        except RuntimeUnavailable as error:
            raise ScarceError(str(error)) from None

    async def _attend(self, process: LocalProcess) -> Exit:
        try:
            with self._running(process):
                return await process.run(self.sink)
        finally:
            process.close()
            if process.ending is not None:
                self._endings.append(process.ending)
            if not process.nothing_left:  # some of its processes may live on for a moment
                self._untidy = True

    async def _progress(self) -> float | None:
        path = self._tork / task_folder.PROGRESS_FILE
        return await in_thread(task_folder.read_progress, path, self._owner)

    async def _make_both(self, folder: Path, small: SmallTask, workdir: HostWorkdir) -> None:
        """Make a folder, and the working directory wherever that is. Raises TaskError, RunLostError."""
        path = workdir.path_from(folder / task_folder.WORKDIR_FOLDER)
        if path.is_relative_to(self._folder):
            await in_thread(self._make, folder, small, workdir)
            return
        await in_thread(self._make, folder, small)
        make = partial(self._make_workdir, folder, small, workdir)
        await self._paths.ask(str(path), f"workdir: {path}", make, workdir.restore)

    def _make(self, folder: Path, small: SmallTask, workdir: HostWorkdir | None = None) -> None:
        try:
            if folder == self._tork:
                self._spares.make(self._folder, small.run)
            else:
                task_folder.remove_folder(folder)  # of a try before
                task_folder.make(folder, small.run)
        except OSError as error:
            raise file_error(error, f"cannot make {error.filename or folder}") from None
        if workdir is not None:
            self._make_workdir(folder, small, workdir)

    def _make_workdir(self, folder: Path, small: SmallTask, workdir: HostWorkdir) -> None:
        try:
            workdir.make(folder / task_folder.WORKDIR_FOLDER, small.files)
        except OSError as error:
            doing = f"cannot make {error.filename or workdir.path}"
            raise file_error(error, doing, chosen=True) from None

    def _order(self, small: SmallTask, folder: Path, workdir: HostWorkdir) -> LocalOrder:
        argv = _command(small, folder / task_folder.SCRIPT_FILE, self._shell.cmd)
        env = {
            "PATH": os.environ.get("PATH", PATH),
            "HOME": self._user.home,
            **host_names(self._hostenv, self.assignment.trace),
            **small.env,
            "PWD": str(workdir.path),
            **own_names(self.assignment, str(folder)),
        }
        check_texts(env, argv)
        return LocalOrder(
            argv=argv,
            env=env,
            cwd=str(workdir.path),
            uid=self._user.uid,
            gid=self._user.gid,
        )


def _command(small: SmallTask, script: Path, shell: Sequence[str]) -> list[str]:
    if not small.run:
        return [*small.entrypoint, *small.cmd]
    before = list(small.entrypoint) or list(shell)
    # After -c comes a line of the shell's language, and the folder's name is not ours to choose.
    path = shlex.quote(str(script)) if before[-1] == "-c" else str(script)
    return [*before, *(small.cmd or [path])]


_ISOLATION = ("limits", "mounts", "networks", "gpus", "sidecars")


def refuse_unsupported(task: TaskDefinition, *, ignore_image: bool) -> None:
    """Raise TaskError with the name of each field that the shell runtime can't honour."""
    refused = [name for name in _ISOLATION if _given(getattr(task, name))]
    for path, small in _containers(task):
        refused += [path + name for name in _of_image(small, ignore_image=ignore_image)]
    if refused:
        raise TaskError(
            f"the shell runtime runs local processes and does not support: {', '.join(refused)}"
            + ("" if ignore_image else _hint(refused))
        )
    for path, small in _containers(task):
        if not (small.run or small.cmd or small.entrypoint):
            raise TaskError(f"{path}run: the shell runtime needs a script or a command")


def _containers(task: TaskDefinition) -> list[tuple[str, SmallTask]]:
    found: list[tuple[str, SmallTask]] = [("", task)]
    for when, smalls in (("pre", task.pre), ("post", task.post)):
        found += [(f"{when}[{index}].", small) for index, small in enumerate(smalls)]
    return found


def _of_image(small: SmallTask, *, ignore_image: bool) -> list[str]:
    if ignore_image:
        return []
    return [name for name in ("image", "registry") if _given(getattr(small, name))]


def _given(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _hint(refused: list[str]) -> str:
    if not any(name.endswith("image") for name in refused):
        return ""
    return " (to ignore the image and run the script on the host, set runtime.shell.ignore_image)"


class ShellRuntime:
    """The shell adapter of the Runtime port. `node_id` is the worker's own."""

    def __init__(self, config: Config, node_id: str) -> None:
        self._config = config
        self._folders = task_folder.Folders(config.worker.data, node_id)
        self._keepers = Supervisors()
        self._paths = HostPaths()
        shell = config.runtime.shell
        self._user = TaskUser.configured(shell.uid, shell.gid)
        self._spares = FolderPool(self._user.gid if self._user.is_another else None)

    async def start(self) -> None:
        """Start the keepers of processes. Raises `RuntimeUnavailable` where `cmd` is no program of this machine."""
        program = self._config.runtime.shell.cmd[0]
        if shutil.which(program) is None:
            raise RuntimeUnavailable(
                f"runtime.shell.cmd: the program {program!r} does not exist on this machine"
            )
        await in_thread(self._folders.open, entered_by_others=self._user.is_another)
        await in_thread(self._keepers.start)

    def warm_up(self) -> None:
        """Do nothing: what is kept warm is what runs have left."""

    async def prepare(self, assignment: Assignment, sink: Sink) -> ShellRun:
        """Make the folder with script and files."""
        folder = self._folders.new()
        run = ShellRun(
            assignment,
            sink,
            self._config,
            self._keepers,
            self._spares,
            self._paths,
            folder,
            self._user,
        )
        try:
            await run.prepare()
        except BaseException:
            await asyncio.shield(run.remove())
            raise
        return run

    async def sweep(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], mine: str
    ) -> int:
        """Remove the folders of dead nodes; their processes died with them."""
        owners = await in_thread(self._folders.owners)
        gone = await dead(owners - {mine}) if owners - {mine} else ()
        removed = 0
        for node in set(gone) - {mine}:
            removed += await in_thread_of(task_folder.REMOVING, self._folders.remove_all, node)
        return removed

    async def ping(self) -> None:
        """Return if the disk takes files; there is no engine to ask."""
        await in_thread(self._folders.check)

    async def close(self) -> None:
        """End the keepers, with what still runs, and remove the folders."""
        await in_thread(self._keepers.close)
        await in_thread(self._spares.close)
        await in_thread(self._folders.close)
        await self._paths.close()


# --- folders ----------------------------------------------------------------------------------------------------------

MAIN_FOLDER = "main"
"""The folder, in that of a run, which the task's own process exchanges files through."""
KEPT_FOLDERS = 64
"""Folders at most: a worker that once ran very many at a time need not keep them all."""


class FolderPool:
    """Folders of ended runs of one worker, emptied and kept for the next ones. Its calls block, and may come from any
    thread.

    To make half a dozen files for each run, and to remove them, costs a file system more than a short task itself
    does; one without a journal looks through all that it removed lately for every file it makes."""

    def __init__(self, group: int | None = None) -> None:
        """`group`: the one by which tasks that run as another user get into their folders."""
        self._group = group
        self._free: list[Path] = []

    def make(self, folder: Path, script: str) -> None:
        """Have a run's folder, with its `MAIN_FOLDER` ready for the script. Raises OSError."""
        if self._renamed(folder):
            task_folder.renew(folder / MAIN_FOLDER, script)
        else:
            folder.mkdir(mode=0o700, parents=True)
            if self._group is not None:
                os.chown(folder, -1, self._group)
                folder.chmod(0o710)
            task_folder.make(folder / MAIN_FOLDER, script)

    def give_back(self, folder: Path) -> bool:
        """Keep a run's folder for another one where nothing but files' contents tell it from a new one; return
        whether it is kept: else it is to be removed. No process of the run may be left."""
        kept = (
            len(self._free) < KEPT_FOLDERS
            and _alone(folder)
            and task_folder.emptied(folder / MAIN_FOLDER)
        )
        if kept:
            self._free.append(folder)
        return kept

    def close(self) -> None:
        """Remove what is kept."""
        for folder in self._taken():
            task_folder.remove_folder(folder)

    def _renamed(self, folder: Path) -> bool:
        """Take a kept folder under a name that no run before has known. False where none is kept."""
        for spare in self._taken():
            try:
                spare.rename(folder)
            except OSError:
                task_folder.remove_folder(spare)
            else:
                return True
        return False

    def _taken(self) -> Iterator[Path]:
        while True:
            try:
                spare = self._free.pop()  # not asked first: another thread may take the last one
            except IndexError:
                return
            yield spare


def _alone(folder: Path) -> bool:
    """Return whether a run had no folders besides `MAIN_FOLDER`."""
    try:
        return [entry.name for entry in folder.iterdir()] == [MAIN_FOLDER]
    except OSError:
        return False


class HostWorkdir:
    """Makes what is missing, as the task's user, and takes it away again. Its calls block, each until another thread's
    is over."""

    def __init__(self, workdir: str, user: TaskUser = WORKERS_OWN) -> None:
        """`workdir` as in the task: absolute, relative to the run's own, or empty for that one."""
        self._workdir = workdir
        self._user = user
        self._made: HostFiles | None = None
        self._turn = threading.Lock()
        self.path = Path("/")

    @property
    def is_busy(self) -> bool:
        """Whether a thread is at it; this blocks nobody."""
        return self._turn.locked()

    @property
    def is_made(self) -> bool:
        """Whether there may be something to take away; this blocks nobody."""
        return self._made is not None

    def path_from(self, own: Path) -> Path:
        """Return where it is to be, with `own` as for `make`, by its name alone; this blocks nobody."""
        return Path(os.path.normpath(own / self._workdir))

    def make(self, own: Path, files: Mapping[str, str]) -> None:
        """Make the directory, `own` unless the task names one, and its files. Raises OSError, TaskError."""
        task_folder.make_folders(own)
        self.path = own / self._workdir
        named = {task_folder.safe_name(name): contents for name, contents in files.items()}
        if not (self._workdir or named):
            return
        with self._turn:
            made = self._made = HostFiles([], [])
            if self._user.is_another:
                self._ask(made, named)
            else:
                made.make(str(self.path), named)

    def restore(self) -> None:
        """Remove the files, and the folders that were made and in which nothing else is."""
        with self._turn:
            made, self._made = self._made, None
            if made is None or not (made.files or made.folders):
                return
            if self._user.is_another:
                with contextlib.suppress(OSError):
                    self._ask(made, None)
            else:
                made.restore()

    def _ask(self, made: HostFiles, files: Mapping[str, str] | None) -> None:
        """Have a process do it that is the task's user; None: remove what was made."""
        order = {
            "uid": self._user.uid,
            "gid": self._user.gid,
            "workdir": str(self.path),
            "write": files,
            "folders": made.folders,
            "files": made.files,
        }
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", host_files.__file__],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            check=False,
            cwd="/",
        )
        if done.returncode != 0:
            user = f"user {self._user.uid} and group {self._user.gid}"
            raise OSError(errno.EPERM, f"the worker cannot act as the task's {user}")
        answer = json.loads(done.stdout)
        made.folders, made.files = answer["folders"], answer["files"]
        if answer["problem"]:
            raise OSError(*answer["problem"])
