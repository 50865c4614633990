"""Makes a task's files on the host, and takes them away again: never over what is there already.

Also a program that does so as another user, for a worker that is root: it imports no other module of Haulier.
It reads one JSON object and writes one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
from typing import Any

NOT_REPLACED = "it is there already, and a task's files replace none that they did not make"


class HostFiles:
    """What was made for one task, in this order."""

    def __init__(self, folders: list[str], files: list[str]) -> None:
        self.folders = folders
        self.files = files

    def make(self, workdir: str, files: dict[str, str]) -> None:
        """Make a folder and files in it, by names that don't climb out. Raises OSError."""
        self._make_folder(workdir)
        for name, text in files.items():
            path = os.path.join(workdir, name)  # noqa: PTH118 - pathlib takes as long to import as all of this
            self._make_folder(os.path.dirname(path))  # noqa: PTH120 - as above
            self._write(path, text.encode("utf-8", "surrogatepass"))

    def restore(self) -> None:
        """Remove the files, and the folders in which nothing else is."""
        for file in self.files:
            with contextlib.suppress(OSError):
                os.unlink(file)  # noqa: PTH108 - as above
        for folder in reversed(self.folders):
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106 - as above

    def _make_folder(self, path: str) -> None:
        missing = []
        while not os.path.isdir(path):  # noqa: PTH112 - as above
            missing.append(path)
            path = os.path.dirname(path)  # noqa: PTH120 - as above
        for folder in reversed(missing):
            os.mkdir(folder)  # noqa: PTH102 - as above
            self.folders.append(folder)
            found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(found, 0o777)
            finally:
                os.close(found)

    def _write(self, path: str, contents: bytes) -> None:
        if path in self.files:  # one file under two names
            os.unlink(path)  # noqa: PTH108 - as above
            self.files.remove(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            if _holds(path, contents):  # left by a run that was killed, or another task's: as good
                return
            raise OSError(errno.EEXIST, NOT_REPLACED, path) from None
        self.files.append(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            os.fchmod(file.fileno(), 0o444)


def _holds(path: str, contents: bytes) -> bool:
    """Return whether a plain file has exactly these contents."""
    try:
        found = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(found, "rb") as file:
        status = os.fstat(found)
        same = stat.S_ISREG(status.st_mode) and status.st_size == len(contents)
        return same and file.read(len(contents) + 1) == contents


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    made = HostFiles(order["folders"], order["files"])
    problem = None
    if order["write"] is None:
        made.restore()
    else:
        try:
            made.make(order["workdir"], order["write"])
        except OSError as error:
            problem = [error.errno, error.strerror, error.filename]
    return {"folders": made.folders, "files": made.files, "problem": problem}


def _become(uid: int | None, gid: int | None) -> None:
    os.setgroups([])
    if gid is not None:
        os.setgid(gid)
    if uid is not None:
        os.setuid(uid)


if __name__ == "__main__":
    told = json.load(sys.stdin)
    _become(told["uid"], told["gid"])
    json.dump(_obey(told), sys.stdout)
