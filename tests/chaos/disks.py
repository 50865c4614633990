"""A disk that is small enough to be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

SIZE = 768 * 1024 * 1024
"""Bytes; an empty member of a replica set takes about 300 MiB."""

CHUNK = 1024 * 1024


class SmallDisk:
    """A file system in memory at `folder`."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no room on it."""
        with self._ballast.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"x" * CHUNK)

    def clear(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int = SIZE) -> Iterator[SmallDisk]:
    """A disk of `size` bytes at `folder`, which is made; gone in the end with what is on it."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


@cache
def can_mount() -> bool:
    """Whether this machine lets us mount."""
    if os.geteuid() != 0:
        return False
    with TemporaryDirectory() as folder, contextlib.suppress(subprocess.CalledProcessError):
        _mount("-t", "tmpfs", "tmpfs", folder)
        subprocess.run(["umount", folder], check=True, capture_output=True)
        return True
    return False


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
