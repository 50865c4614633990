"""The working directory of a local process: its run's own, or one that the task names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from worker.runtime import task_folder


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
