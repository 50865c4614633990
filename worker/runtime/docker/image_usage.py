"""Which images were pulled for tasks, and when each was last used.

Remembered beyond a worker's life: a file for each in the worker's data folder, its time of
modification that of the last use. All workers with the same data folder share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path


class UsedImages:
    """The images that are ours to remove."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note_pulled(self, image: str) -> None:
        """Remember that an image was pulled for a task. Called again, nothing more."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file(image).write_text(image)

    def note_used(self, image: str) -> None:
        """Remember that an image is used now, where it was pulled for a task."""
        with contextlib.suppress(OSError):
            os.utime(self._file(image))

    def unused(self, ttl: float) -> list[str]:
        """Return the images that were not used for `ttl` seconds."""
        before, found = time.time() - ttl, []
        with contextlib.suppress(OSError):
            for file in self._folder.iterdir():
                if file.stat().st_mtime < before:
                    found.append(file.read_text())  # noqa: PERF401 - what was found before an error counts
        return found

    def forget(self, image: str) -> None:
        """Forget an image that is gone."""
        with contextlib.suppress(OSError):
            self._file(image).unlink()

    def _file(self, image: str) -> Path:
        return self._folder / hashlib.sha256(image.encode()).hexdigest()[:32]
