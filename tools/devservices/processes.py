"""Programs in the background that outlive the command which started them.

Each is known by its pid together with the kernel's start time of that pid, so that a pid that was
handed to a stranger after a crash is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL = 0.1
"""Seconds between two looks at something that is awaited."""


class ServiceError(Exception):
    """A service that can't be had; the message says why and where its log is."""


def launch(
    folder: Path, command: Sequence[str | Path], env: Mapping[str, str] | None = None
) -> None:
    """Start a program in a session of its own, its output in `log`, its identity in `pid`."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    (folder / "pid").write_text(f"{process.pid} {_started(process.pid)}\n")


def running(folder: Path) -> bool:
    """Whether the program launched in this folder still runs."""
    return _pid(folder) is not None


def halt(folder: Path, patience: float = 30) -> None:
    """End the program launched in this folder: asked first, killed with its group after `patience`.

    Returns when it is gone; does nothing where it already is.
    """
    pid = _pid(folder)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    send_signal(folder, signal.SIGCONT)
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: _pid(folder) is None, patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: _pid(folder) is None, patience)


def send_signal(folder: Path, number: signal.Signals) -> None:
    """Signal the program launched in this folder, with all of its group; nothing where it ended. After SIGSTOP, wait
    until all of it is held: on a busy machine a thread may answer for a while yet."""
    pid = _pid(folder)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        if number == signal.SIGSTOP:
            wait_until(lambda: _is_held(pid), 10)


def _is_held(group: int) -> bool:
    """Return whether no thread of a group of processes runs."""
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "TtZX":
                return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return as soon as the condition holds; raise TimeoutError after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(POLL)


def await_answer(name: str, folder: Path, answers: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until a launched service answers.

    Raises ServiceError with the end of its log when it dies first or takes too long.
    """

    def settled() -> bool:
        return answers() or not running(folder)

    with contextlib.suppress(TimeoutError):
        wait_until(settled, seconds)
    if not (running(folder) and answers()):
        raise ServiceError(f"{name} did not come up; the end of its log:\n{_tail(folder / 'log')}")


def _tail(log: Path, lines: int = 15) -> str:
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _pid(folder: Path) -> int | None:
    try:
        pid, started = (folder / "pid").read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


def _started(pid: int) -> str | None:
    """The start time of a live pid in clock ticks since boot (proc(5), field 22)."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
