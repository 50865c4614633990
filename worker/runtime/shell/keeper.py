"""The keeper of local processes: a program of its own that imports nothing of ours.

The worker starts it, and it forks one keeper per run. A keeper is the reaper of all processes of its
run, however often they fork and whatever sessions they make, so that it can end the whole tree, and
knows the exact use of all of it. It ends the tree when it is told to, when the run's own process has
ended, and when the worker is gone: then the other end of its socket is closed, by the kernel and in
all cases.

A request is one packet of JSON with two descriptors: the run's socket and where its output goes.
On a run's socket the worker sends `T` (SIGTERM to the tree) or `K` (SIGKILL); the keeper answers
with one JSON object when nothing is left of the tree.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LARGEST_REQUEST = 8 * 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


def main(control: socket.socket) -> None:
    """Serve until the worker closes its end. Keepers that still have runs outlive this, briefly."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers reap themselves
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the worker's to handle
    gc.freeze()
    while True:
        length, descriptors, _, _ = socket.recv_fds(control, 16, 3)
        if not length:
            return
        run, request, output = descriptors
        if os.fork() == 0:
            control.close()
            _keep(socket.socket(fileno=run), request, output)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(run: socket.socket, request: int, output: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for descriptor in (run.fileno(), output):
            os.set_inheritable(descriptor, False)
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with os.fdopen(request, "rb") as file:
            order = json.load(file)
        _Keeper(run).keep(order, output)
        status = 0
    finally:
        os._exit(status)


class _Keeper:
    def __init__(self, run: socket.socket) -> None:
        self._run = run
        self._main = 0
        self._status: int | None = None
        self._ending = False

    def keep(self, order: dict[str, Any], output: int) -> None:
        waker = _wake_on_child()
        started = time.monotonic()
        self._main, fault = _spawn(order, output)
        os.close(output)
        if not fault:
            self._watch(waker)
        seconds = time.monotonic() - started
        _end_tree()
        self._report(seconds, fault)

    def _watch(self, waker: int) -> None:
        poll = select.poll()
        poll.register(waker, select.POLLIN)
        poll.register(self._run, select.POLLIN)
        while not self._reap():
            for descriptor, _ in poll.poll():
                if descriptor == waker:
                    os.read(waker, 4096)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        """Do as the worker says. False when the tree is to be killed, or the worker is gone."""
        try:
            word = self._run.recv(1)
        except OSError:
            word = b""
        if word == b"T":
            self._ending = True
            for process in _descendants(os.getpid()):
                _signal(process, signal.SIGTERM)
            return True
        return False

    def _reap(self) -> bool:
        """Reap what has ended. Returns whether the run is over.

        That is when its own process has ended; after a SIGTERM, when all have: each may have
        something to put in order.
        """
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if process == self._main:
                self._status = status
            if not process:
                return self._status is not None and not self._ending

    def _report(self, seconds: float, fault: str) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = -signal.SIGKILL if self._status is None else os.waitstatus_to_exitcode(self._status)
        answer = {
            "code": code,
            "fault": fault,
            "wall": seconds,
            "cpu": used.ru_utime + used.ru_stime,
            "memory": used.ru_maxrss * 1024,
        }
        with contextlib.suppress(OSError):  # the worker is gone: nobody wants to know
            self._run.sendall(json.dumps(answer).encode())


def _wake_on_child() -> int:
    """Return a descriptor that can be read when a child has ended."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _spawn(order: dict[str, Any], output: int) -> tuple[int, str]:
    """Start the run's process. Returns its id, and what was wrong where it could not be started."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    process = os.fork()
    if process == 0:
        try:
            os.close(reader)
            _become(order, output)
        except BaseException as error:  # told to the parent; nothing else may happen here
            with contextlib.suppress(OSError):
                os.write(writer, _reason(error, order).encode("utf-8", "replace"))
        finally:
            os._exit(127)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        return process, file.read().decode("utf-8", "replace")


def _become(order: dict[str, Any], output: int) -> None:
    """Turn into the run's process: the last steps of the child."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _drop_to(order["uid"], order["gid"])
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o022)
    os.chdir(order["cwd"])
    os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - this is the purpose


def _drop_to(uid: int | None, gid: int | None) -> None:
    if uid is None and gid is None:
        return
    if os.geteuid() == 0:
        os.setgroups([])
    if gid is not None:
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)


def _reason(error: BaseException, order: dict[str, Any]) -> str:
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {error}"
    if error.errno == errno.ENOENT and os.path.isdir(order["cwd"]):  # noqa: PTH112 - pathlib is not imported
        return f"{order['argv'][0]}: no such program"
    return f"{error.filename or order['argv'][0]}: {error.strerror}"


def _descendants(top: int) -> list[int]:
    """All processes below `top`, parents first."""
    found = [top]
    for process in found:
        found.extend(_children(process))
    return found[1:]


def _children(process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 - as above
            with open(f"/proc/{process}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                found.extend(int(child) for child in file.read().split())
    return found


def _end_tree() -> None:
    """Kill and reap all processes of the run, until there is none."""
    while _any_child_left():
        processes = _descendants(os.getpid())
        for number in (signal.SIGSTOP, signal.SIGKILL):  # one that is stopped forks no more
            for process in processes:
                _signal(process, number)
        time.sleep(0.001)


def _any_child_left() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.kill(process, number)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
