"""The folders of runs, in the worker's data folder, by node."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import uuid
from pathlib import Path

from shared.errors import RuntimeUnavailable
from worker.runtime import task_folder


class Folders:
    """The folders of the runs of one node, and what other nodes on this machine have left."""

    def __init__(self, data: str, node_id: str) -> None:
        """Take `data`, the worker's data folder; empty for one in the system's temporary folder."""
        base = Path(data) if data else Path(tempfile.gettempdir(), f"haulier-{os.geteuid()}")
        self.top = (base / "runs").absolute()
        self.mine = self.top / node_id

    def open(self) -> None:
        """Make what is needed. Raises RuntimeUnavailable."""
        try:
            for folder in (self.top.parent, self.top, self.mine):
                folder.mkdir(parents=True, exist_ok=True)
            _check_owner(self.top.parent)
            for folder in (self.top, self.mine):
                folder.chmod(
                    0o711
                )  # entered by those who know a run's random name, listed by nobody
        except OSError as error:
            raise RuntimeUnavailable(
                f"worker.data: {self.top} cannot be used: {error.strerror}"
            ) from None

    def new(self) -> Path:
        """Return the path of a folder for a run; it is not made."""
        return self.mine / uuid.uuid4().hex

    def owners(self) -> set[str]:
        """Return the ids of the nodes that have folders here."""
        with contextlib.suppress(OSError):
            return {entry.name for entry in self.top.iterdir() if entry.is_dir()}
        return set()

    def remove_all(self, node_id: str) -> int:
        """Remove what a node left. Returns 1 if that was something, else 0."""
        folder = self.top / node_id
        if folder.parent != self.top or folder.is_symlink() or not folder.is_dir():
            return 0
        return int(task_folder.remove_folder(folder))

    def close(self) -> None:
        """Remove the node's folder where no run has left anything in it."""
        with contextlib.suppress(OSError):
            self.mine.rmdir()


def _check_owner(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise RuntimeUnavailable(
            f"worker.data: {folder} belongs to another user: choose another folder"
        )
