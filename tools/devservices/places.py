"""Where the services keep their files: all of it under `.services/` of the clone."""

from __future__ import annotations

import fcntl
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / ".services"
LOOPBACK = "127.0.0.1"


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
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
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
