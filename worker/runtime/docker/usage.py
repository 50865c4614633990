"""What a run used: read, after its end, from a parent cgroup of its own.

The containers of a run are children of that cgroup. They are gone when the run has ended, but what
they used is counted in it too, exactly, however short they were.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
NANO = 1e9
MICRO = 1e6
_CHARGED_AT_ONCE = 1024 * 1024
"""Bytes that the kernel may take account of at once, on all CPUs: so near to a limit a peak can be."""


@dataclass(frozen=True)
class Used:
    """CPU time in seconds, memory at its highest in bytes."""

    cpu_seconds: float
    peak_memory_bytes: int


class Cgroups(ABC):
    """A parent cgroup for each run; by name, below one of the worker's."""

    def __init__(self, parent: str) -> None:
        self.parent = parent.strip("/")

    def name(self, run: str) -> str:
        """Return what the engine is told as a container's parent."""
        return f"/{self.parent}/{run}"

    @abstractmethod
    def read(self, run: str) -> Used | None:
        """Return what a run used; None where there is nothing to be read."""

    @abstractmethod
    def starved(self, run: str, limit: int) -> bool:
        """Whether the kernel killed for lack of memory in a run whose containers have this limit.

        Engines say it too, but not all of them, and some too late.
        """

    @abstractmethod
    def folders(self, run: str) -> list[Path]:
        """Return the folders of a run's cgroup."""

    def beside(self, node_id: str) -> Cgroups:
        """Return those of another worker with the same parent."""
        return type(self)(f"{self.parent.rpartition('/')[0]}/{node_id}")

    def remove(self, run: str) -> None:
        """Remove a run's cgroup, and what an engine has left in it."""
        for folder in self.folders(run):
            _remove_tree(folder)

    def remove_all(self) -> None:
        """Remove the worker's cgroup, and those of its runs."""
        self.remove("")


def _remove_tree(folder: Path) -> None:
    try:
        folder.rmdir()  # the files in it are the kernel's and don't count
    except FileNotFoundError:
        return
    except OSError:
        with contextlib.suppress(OSError):  # a process is still in it
            for below in folder.glob("*/"):
                _remove_tree(below)
            folder.rmdir()


class CgroupsV1(Cgroups):
    """One hierarchy for each controller."""

    def read(self, run: str) -> Used | None:
        """As promised above."""
        try:
            cpu = int(self._file("cpuacct", run, "cpuacct.usage").read_text())
            memory = int(self._file("memory", run, "memory.max_usage_in_bytes").read_text())
        except (OSError, ValueError):
            return None
        return Used(cpu / NANO, memory)

    def starved(self, run: str, limit: int) -> bool:
        """As promised above. Only a container's own cgroup counts its kills, and that is gone."""
        used = self.read(run)
        return used is not None and 0 < limit <= used.peak_memory_bytes + _CHARGED_AT_ONCE

    def folders(self, run: str) -> list[Path]:
        """As promised above."""
        return [hierarchy / self.parent / run for hierarchy in _hierarchies()]

    def _file(self, controller: str, run: str, name: str) -> Path:
        return ROOT / controller / self.parent / run / name


@cache
def _hierarchies() -> list[Path]:
    found = ROOT.iterdir()
    return [folder for folder in found if not folder.is_symlink() and folder.is_dir()]


class CgroupsV2(Cgroups):
    """One hierarchy for all."""

    def read(self, run: str) -> Used | None:
        """As promised above."""
        folder = ROOT / self.parent / run
        try:
            lines = (folder / "cpu.stat").read_text().split()
            cpu = int(lines[lines.index("usage_usec") + 1])
            memory = int((folder / "memory.peak").read_text())
        except (OSError, ValueError, IndexError):
            return None
        return Used(cpu / MICRO, memory)

    def starved(self, run: str, limit: int) -> bool:
        """As promised above. The count includes that of the containers."""
        del limit
        try:
            words = (ROOT / self.parent / run / "memory.events").read_text().split()
            return int(words[words.index("oom_kill") + 1]) > 0
        except (OSError, ValueError, IndexError):
            return False

    def folders(self, run: str) -> list[Path]:
        """As promised above."""
        return [ROOT / self.parent / run]


def cgroups(version: str, driver: str, parent: str) -> Cgroups | None:
    """Return the cgroups of the engine's kind; None where a parent cannot be given by its path."""
    if driver != "cgroupfs":
        return None
    if version == "2":
        return CgroupsV2(parent) if (ROOT / "cgroup.controllers").exists() else None
    return CgroupsV1(parent) if (ROOT / "memory").is_dir() else None
