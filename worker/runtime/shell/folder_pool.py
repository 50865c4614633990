"""Folders of ended runs, emptied and kept for the next ones.

To make half a dozen files for each run, and to remove them, costs a file system more than a short task
itself does; one without a journal looks through all that it removed lately for every file it makes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from worker.runtime import task_folder

MAIN_FOLDER = "main"
"""The folder, in that of a run, which the task's own process exchanges files through."""
KEPT = 64
"""Folders at most: a worker that once ran very many at a time need not keep them all."""


class FolderPool:
    """The folders of runs of one worker. Its calls block, and may come from any thread."""

    def __init__(self) -> None:
        self._free: list[Path] = []

    def make(self, folder: Path, script: str) -> None:
        """Have a run's folder, with its `MAIN_FOLDER` ready for the script. Raises OSError."""
        if self._renamed(folder):
            task_folder.renew(folder / MAIN_FOLDER, script)
        else:
            task_folder.make(folder / MAIN_FOLDER, script)

    def give_back(self, folder: Path) -> None:
        """Keep a run's folder for another one where nothing but files' contents tell it from a new one, else
        remove it. No process of the run may be left."""
        if len(self._free) < KEPT and _alone(folder) and task_folder.emptied(folder / MAIN_FOLDER):
            self._free.append(folder)
        else:
            task_folder.remove_folder(folder)

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
    """Makes what is missing, and takes it away again."""

    def __init__(self, workdir: str) -> None:
        """`workdir` as in the task: absolute, relative to the run's own, or empty for that one."""
        self._workdir = workdir
        self._folders: list[Path] = []
        self._files: list[Path] = []
        self.path = Path("/")

    def make(self, own: Path, files: Mapping[str, str]) -> None:
        """Make the directory, `own` unless the task names one, and its files. Raises OSError."""
        task_folder.write_files(own, {})
        self.path = own / self._workdir
        self._make_folder(self.path)
        for name, contents in files.items():
            path = self.path / task_folder.safe_name(name)
            self._make_folder(path.parent)
            path.unlink(missing_ok=True)
            task_folder.write_file(path, task_folder.encoded(contents), 0o444)
            self._files.append(path)

    def restore(self) -> None:
        """Remove the files, and the folders that were made and in which nothing else is."""
        for file in self._files:
            with contextlib.suppress(OSError):
                file.unlink()
        for folder in reversed(self._folders):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _make_folder(self, path: Path) -> None:
        if path.is_dir():
            return
        self._make_folder(path.parent)
        path.mkdir()
        path.chmod(0o777)
        self._folders.append(path)
