"""Measures what a run used, from its own parent cgroup after its end.

The containers of a run are children of that cgroup. They are gone when the run has ended, but what
they used is counted in it too, exactly, however short they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from docker.errors import APIError

from shared.supervision import Backoff, Loop, waiting
from worker.runtime.docker.engine import Engine, EngineGoneError

ROOT = Path("/sys/fs/cgroup")
NANO = 1e9
MICRO = 1e6
_DYING = 0.5
"""Seconds that a killed process may take to leave its cgroup."""
_CHARGED_AT_ONCE = 1024 * 1024
"""Bytes that the kernel may take account of at once, on all CPUs: so near to a limit a peak can be."""


class Used(msgspec.Struct, frozen=True):
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
        """Return whether the kernel killed for lack of memory in a run whose containers have this limit.

        Engines say it too, but not all of them, and some too late.
        """

    @abstractmethod
    def folders(self, run: str) -> list[Path]:
        """Return the folders of a run's cgroup."""

    def beside(self, node_id: str) -> Cgroups:
        """Return those of another worker with the same parent."""
        return type(self)(f"{self.parent.rpartition('/')[0]}/{node_id}")

    def remove(self, run: str) -> None:
        """Remove a run's cgroup, and what an engine has left in it. A process that was killed is in it until the kernel
        has done with it: that is waited for a moment."""
        until = time.monotonic() + _DYING
        for folder in self.folders(run):
            _remove_tree(folder)
            while folder.exists() and time.monotonic() < until:
                time.sleep(0.02)
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
        """Return what the controllers cpuacct and memory have counted."""
        try:
            cpu = int(self._file("cpuacct", run, "cpuacct.usage").read_text())
            memory = int(self._file("memory", run, "memory.max_usage_in_bytes").read_text())
        except (OSError, ValueError):
            return None
        return Used(cpu / NANO, memory)

    def starved(self, run: str, limit: int) -> bool:
        """Tell it by the peak: only a container's own cgroup counts its kills, and that is gone."""
        used = self.read(run)
        return used is not None and 0 < limit <= used.peak_memory_bytes + _CHARGED_AT_ONCE

    def folders(self, run: str) -> list[Path]:
        """Return its folder in each hierarchy."""
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
        """Return what cpu.stat and memory.peak say."""
        folder = ROOT / self.parent / run
        try:
            lines = (folder / "cpu.stat").read_text().split()
            cpu = int(lines[lines.index("usage_usec") + 1])
            memory = int((folder / "memory.peak").read_text())
        except (OSError, ValueError, IndexError):
            return None
        return Used(cpu / MICRO, memory)

    def starved(self, run: str, limit: int) -> bool:
        """Tell it by the kernel's count of kills, which includes that of the containers."""
        del limit
        try:
            words = (ROOT / self.parent / run / "memory.events").read_text().split()
            return int(words[words.index("oom_kill") + 1]) > 0
        except (OSError, ValueError, IndexError):
            return False

    def folders(self, run: str) -> list[Path]:
        """Return its one folder."""
        return [ROOT / self.parent / run]


def cgroups(version: str, driver: str, parent: str) -> Cgroups | None:
    """Return the cgroups of the engine's kind; None where a parent cannot be given by its path."""
    if driver != "cgroupfs":
        return None
    if version == "2":
        return CgroupsV2(parent) if (ROOT / "cgroup.controllers").exists() else None
    return CgroupsV1(parent) if (ROOT / "memory").is_dir() else None


_FIRST, _LONGEST = 0.5, 5.0
"""Seconds between samples."""


class Sampler:
    """Sums up what the containers of a run have used, as far as it was seen."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended = 0.0
        self._cpu = 0.0
        self._peak = 0

    def used(self) -> Used:
        """Return what was seen; less than what was used."""
        return Used(self._ended + self._cpu, self._peak)

    @contextlib.asynccontextmanager
    async def sampling(self, container_id: str) -> AsyncIterator[None]:
        """Sample a container while the body runs."""
        try:
            async with Loop("usage of a task", lambda: self._sample(container_id)):
                yield
        finally:
            self._ended, self._cpu = self._ended + self._cpu, 0.0

    async def _sample(self, container_id: str) -> None:
        backoff = Backoff(_FIRST, _LONGEST)
        while True:
            with waiting():
                await asyncio.sleep(backoff.next())
            with contextlib.suppress(APIError, EngineGoneError):
                stats = self._engine.api.stats
                self._add(
                    await self._engine.watch(stats, container_id, stream=False, one_shot=True)
                )

    def _add(self, stats: dict[str, Any]) -> None:
        cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
        memory = stats.get("memory_stats") or {}
        self._cpu = max(self._cpu, int(cpu.get("total_usage") or 0) / NANO)
        peak = int(memory.get("max_usage") or memory.get("usage") or 0)
        self._peak = max(self._peak, peak)


class Seen(msgspec.Struct):
    """What the worker saw of a container's life, by its own clocks, in seconds."""

    called: float = 0.0
    """When its start was asked for, since the epoch."""
    asked: float = 0.0
    """The same, on a clock that nobody sets."""
    started: float | None = None
    """When the engine said that it had started."""
    ended: float | None = None
    """When its end was heard of."""

    def start_asked(self) -> None:
        """Note that it is about to be started."""
        self.called, self.asked = time.time(), time.monotonic()

    def has_started(self) -> None:
        """Note that the engine says it has started."""
        self.started = time.monotonic()

    def has_ended(self) -> None:
        """Note that its end was heard of."""
        self.ended = time.monotonic()


def seconds(state: Mapping[str, Any], seen: Seen, script_read: float | None) -> float:
    """Return how long it ran; 0 where it never did.

    A busy engine notes a start late, sometimes after the end. Where the worker shares the engine's
    files, `script_read` is when the script was first read (since the epoch; else None): a start that
    is noted later than that is wrong. It cannot have run for longer than from the call that started it
    until its end was heard of; and where the engine's times say nothing, what the worker saw counts.
    """
    if seen.started is None or seen.ended is None:
        return 0.0
    ran = _by_the_engine(state, seen.called, script_read)
    return min(ran if ran > 0 else seen.ended - seen.started, seen.ended - seen.asked)


def _by_the_engine(state: Mapping[str, Any], called: float, script_read: float | None) -> float:
    """Return seconds; not positive where the engine's times are missing or make no sense."""
    try:
        began, ended = (_time(state[name]) for name in ("StartedAt", "FinishedAt"))
    except (KeyError, ValueError):
        return 0.0
    if script_read is not None and called <= script_read < began:
        began = script_read
    return ended - began


def _time(text: str) -> float:
    """Return the seconds since the epoch that RFC 3339 text says. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
