"""Where the services keep their files: all of it under `.services/` of the clone."""

from __future__ import annotations

import contextlib
import fcntl
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / ".services"
LOOPBACK = "127.0.0.1"
NEVER_OUTGOING = range(15_000, 32_000)
"""Ports below those that Linux gives to outgoing connections."""


def folder(name: str) -> Path:
    """The folder of one service, made when missing. Its data is gone after a stop."""
    path = SERVICES / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def downloads() -> Path:
    """The folder of what was fetched once and outlives a stop (`make clean` empties it)."""
    return folder("downloads")


def forget(name: str) -> None:
    """Remove a service's folder and all its data, unmounting what an engine mounted in it."""
    path = SERVICES / name
    for mounted in reversed(_mounts_under(path)):
        subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)
    shutil.rmtree(path, ignore_errors=True)


def _mounts_under(path: Path) -> list[str]:
    """Mount points there, outer ones first (proc(5), mountinfo: the fifth field)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].replace("\\040", " ") for line in lines]
    return [point for point in points if Path(point).is_relative_to(path)]


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now.

    It is none that the kernel gives to outgoing connections (ip(7), ip_local_port_range): one of
    those could take it while the server that it was found for is not yet up, or starts again.
    """
    while True:
        port = random.choice(NEVER_OUTGOING)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((LOOPBACK, port))
            return port


def listening(host: str, port: int) -> bool:
    """Whether something accepts connections there (waits one second at most)."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the clone's lock: two commands at once would start a service twice."""
    SERVICES.mkdir(exist_ok=True)
    with (SERVICES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
