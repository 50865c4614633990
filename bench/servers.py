"""Processes of Haulier to be measured, on data of their own that go with them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from haulier.client import Client

READY_WITHIN = 60.0
STOPS_WITHIN = 60.0
LOOK_EVERY = 0.1
"""Seconds between two looks at the totals of jobs: a question that an index answers."""
SHELL = {"HAULIER_RUNTIME_TYPE": "shell"}
_ADDRESS = re.compile(rb"address=(http\S+)")


class Server:
    """A process, from `with` to its end. Its log is kept until then, and shown if it fails."""

    def __init__(
        self, command: Sequence[str], settings: Mapping[str, str], folder: Path, ready: str
    ) -> None:
        self._command = [sys.executable, "-m", *command]
        self._settings = settings
        self._ready = ready.encode()
        self._log = folder / f"{command[0]}-{time.monotonic_ns()}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        kept = {name: value for name, value in os.environ.items() if "HAULIER_" not in name}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env={**kept, **self._settings}, stdout=log, stderr=log
            )
        deadline = time.monotonic() + READY_WITHIN
        while self._ready not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"it is not ready:\n{self._log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> str:
        """Where its API listens."""
        found = _ADDRESS.search(self._log.read_bytes())
        assert found is not None
        return found[1].decode()

    def cpu_seconds(self) -> float:
        """What it has used of the processors itself."""
        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)


def coordinator(settings: Mapping[str, str], folder: Path) -> Server:
    """Return a coordinator to be started."""
    own = {"HAULIER_COORDINATOR_ADDRESS": "localhost:0"}
    return Server(["coordinator"], {**own, **settings}, folder, "coordinator started")


def worker(settings: Mapping[str, str], folder: Path, slots: int) -> Server:
    """Return a worker of the shell runtime to be started."""
    own = {
        "HAULIER_WORKER_ADDRESS": "localhost:0",
        "HAULIER_WORKER_DATA": str(folder / f"worker-{time.monotonic_ns()}"),
        "HAULIER_WORKER_QUEUES_DEFAULT": str(slots),
    }
    return Server(["worker"], {**own, **SHELL, **settings}, folder, "worker started")


def standalone(settings: Mapping[str, str], folder: Path, slots: int) -> Server:
    """Return a standalone process to be started."""
    own = {
        "HAULIER_DATASTORE_SQLITE_PATH": str(folder / "haulier.db"),
        "HAULIER_WORKER_DATA": str(folder / "worker"),
        "HAULIER_COORDINATOR_ADDRESS": "localhost:0",
        "HAULIER_WORKER_ADDRESS": "localhost:0",
        "HAULIER_WORKER_QUEUES_DEFAULT": str(slots),
    }
    command = ["haulier.cli", "run", "standalone"]
    return Server(command, {**own, **settings}, folder, "haulier is ready")


class Jobs:
    """Submits many jobs at once and waits for all of them by asking for totals."""

    def __init__(self, client: Client, document: Mapping[str, object]) -> None:
        self._client = client
        self._document = document
        self._done = 0

    async def run(self, count: int) -> None:
        """Submit `count` jobs; return when all have completed."""
        await asyncio.gather(*(self._client.submit(self._document) for _ in range(count)))
        self._done += count
        while await self._total("COMPLETED") < self._done:
            if failed := await self._total("FAILED"):
                raise RuntimeError(f"{failed} jobs failed")
            await asyncio.sleep(LOOK_EVERY)

    async def _total(self, state: str) -> int:
        return (await self._client.jobs(state=state, size=1)).total_items


@contextmanager
def cpu_of(servers: Mapping[str, Server], tasks: int) -> Iterator[None]:
    """Print the processor time that each server used for a task meanwhile."""
    before = {name: server.cpu_seconds() for name, server in servers.items()}
    yield
    used = {name: server.cpu_seconds() - before[name] for name, server in servers.items()}
    said = ", ".join(f"{name} {seconds / tasks * 1000:.2f} ms" for name, seconds in used.items())
    print(f"  processor time a task: {said}", flush=True)
