"""One process per database file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shared.errors import StoreMisconfigured


class FileLock:
    """Held from `take` to `release`, or until the process ends, however it ends.

    It lies on a file of its own beside the database: closing any descriptor of the database itself
    would drop the locks that SQLite has on it (POSIX).
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take it or raise `StoreMisconfigured`, naming who has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreMisconfigured(
                f"the datastore {self._database} is in use by another process ({holder or 'unknown'}): "
                "stop that one, or set datastore.sqlite.path to another file"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it up; a second time does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
