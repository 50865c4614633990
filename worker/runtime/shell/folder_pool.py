"""Folders of ended runs, emptied and kept for the next ones.

To make half a dozen files for each run, and to remove them, costs a file system more than a short task
itself does; one without a journal looks through all that it removed lately for every file it makes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from worker.runtime import task_folder
from worker.runtime.shell import host_files
from worker.runtime.shell.host_files import HostFiles

MAIN_FOLDER = "main"
"""The folder, in that of a run, which the task's own process exchanges files through."""
KEPT_FOLDERS = 64
"""Folders at most: a worker that once ran very many at a time need not keep them all."""


class FolderPool:
    """The folders of runs of one worker. Its calls block, and may come from any thread."""

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


class TaskUser(msgspec.Struct, frozen=True):
    """Who a task's processes are. None: as the worker."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def configured(cls, uid: int | None, gid: int | None) -> TaskUser:
        """Return whom the settings name. Without a group it is in its own, never in root's: the one that the host has
        for it, or the one of the same number."""
        if uid is None or gid is not None or os.geteuid() != 0:
            return cls(uid, gid)
        try:
            return cls(uid, pwd.getpwuid(uid).pw_gid)
        except KeyError:
            return cls(uid, uid)

    @property
    def is_another(self) -> bool:
        """Whether files have to be made by somebody else than the worker."""
        return os.geteuid() == 0 and (self.uid is not None or self.gid is not None)


WORKERS_OWN = TaskUser()


class HostWorkdir:
    """Makes what is missing, as the task's user, and takes it away again."""

    def __init__(self, workdir: str, user: TaskUser = WORKERS_OWN) -> None:
        """`workdir` as in the task: absolute, relative to the run's own, or empty for that one."""
        self._workdir = workdir
        self._user = user
        self._made = HostFiles([], [])
        self.path = Path("/")

    def make(self, own: Path, files: Mapping[str, str]) -> None:
        """Make the directory, `own` unless the task names one, and its files. Raises OSError, TaskError."""
        task_folder.make_folders(own)
        self.path = own / self._workdir
        named = {task_folder.safe_name(name): contents for name, contents in files.items()}
        if not (self._workdir or named):
            return
        if self._user.is_another:
            self._ask(named)
        else:
            self._made.make(str(self.path), named)

    def restore(self) -> None:
        """Remove the files, and the folders that were made and in which nothing else is."""
        if not (self._made.files or self._made.folders):
            return
        if self._user.is_another:
            with contextlib.suppress(OSError):
                self._ask(None)
        else:
            self._made.restore()

    def _ask(self, files: Mapping[str, str] | None) -> None:
        """Have a process do it that is the task's user; None: remove what was made."""
        order = {
            "uid": self._user.uid,
            "gid": self._user.gid,
            "workdir": str(self.path),
            "write": files,
            "folders": self._made.folders,
            "files": self._made.files,
        }
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", host_files.__file__],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            check=False,
            cwd="/",
        )
        if done.returncode != 0:
            raise OSError(errno.EPERM, f"the task's user {self._user} can't be become")
        answer = json.loads(done.stdout)
        self._made = HostFiles(answer["folders"], answer["files"])
        if answer["problem"]:
            raise OSError(*answer["problem"])
