"""The supervisor (keeper) of local processes: a separate program that imports no other module of Haulier.

The worker starts it, and it forks as many keepers as there are runs at a time; each keeps one run after
another. A keeper is the reaper of all processes of its run, however often they fork and whatever
sessions they make, so that it can end the whole tree, and knows the exact use of all of it. It ends the
tree when it is told to, when the run's own process has ended, and when the worker is gone: then the
other end of its socket is closed, by the kernel and in all cases. What a keeper that was killed left
behind falls to the program itself, which kills it.

A process is started without a copy of the keeper (`vfork`), which would cost more than all else.

On the control socket each packet carries one descriptor: a new keeper's own socket. On that socket the
worker sends an order, one packet with two descriptors: JSON, and where the output goes; while it runs
`T` (SIGTERM to the tree) or `K` (SIGKILL). The keeper answers with one packet, a JSON object, when
nothing is left of the tree, and waits for the next order. Where something of it can't be killed, it
answers after `KILLED_WITHIN` all the same, says so, and ends.
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
import subprocess
import sys
import time
from typing import Any, NoReturn

PR_SET_CHILD_SUBREAPER = 36
LONGEST_PROBLEM = 4000
"""Characters."""
KILLED_WITHIN = 20.0
"""Seconds that killed processes have to end. One may hang in the kernel, on a disk that does not answer."""
_libc = ctypes.CDLL(None, use_errno=True)


def main(control: socket.socket, descriptors: int) -> None:
    """Serve until the worker closes its end. Keepers that still have runs outlive this, briefly.

    Runs have the soft limit of `descriptors`, not the one that the worker has raised for itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C in a terminal is the worker's to handle
    _adopt()
    waker = _wake_on_child()
    keepers: set[int] = set()
    gc.freeze()
    poll = _polling(waker, control.fileno())
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == waker:
                os.read(waker, 4096)
                _bury(keepers)
                continue
            length, given, _, _ = socket.recv_fds(control, 16, 1)
            if not length:
                return
            with contextlib.suppress(OSError):  # its socket is closed, which says it all
                keepers.add(_fork(control, given[0]))


def _fork(control: socket.socket, own: int) -> int:
    """Make a keeper that serves its own socket; return its id."""
    try:
        process = os.fork()
        if process == 0:
            control.close()
            _keep(socket.socket(fileno=own))
    finally:
        os.close(own)
    return process


def _bury(keepers: set[int]) -> None:
    """Reap what has ended, and kill what a keeper left that did not end by itself."""
    with contextlib.suppress(ChildProcessError):
        while process := os.waitpid(-1, os.WNOHANG)[0]:
            keepers.discard(process)
    for orphan in _children(os.getpid()):
        if orphan not in keepers:
            for process in (orphan, *_descendants(orphan)):
                _signal(process, signal.SIGKILL)


def _keep(own: socket.socket) -> NoReturn:
    status = 1
    try:
        os.setsid()
        _adopt()
        waker = _wake_on_child()
        while True:
            length, descriptors, _, _ = socket.recv_fds(own, 16, 2)
            if not length:
                break
            if not descriptors:  # a word that came too late for its run
                continue
            if not _one_run(own, waker, *descriptors):
                break
        status = 0
    finally:
        os._exit(status)


def _one_run(own: socket.socket, waker: int, request: int, output: int) -> bool:
    with os.fdopen(request, "rb") as file:
        order = json.load(file)
    return _Keeper(own, waker).keep(order, output)


def _adopt() -> None:
    """Be the parent of all descendants that lose theirs."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class _Keeper:
    """One run."""

    def __init__(self, own: socket.socket, waker: int) -> None:
        self._own = own
        self._waker = waker
        self._main = 0
        self._status: int | None = None
        self._ending = False
        self._cpu = 0.0
        self._memory = 0

    def keep(self, order: dict[str, Any], output: int) -> bool:
        """Carry out an order, and answer. Return whether nothing is left of it."""
        started = time.monotonic()
        self._main, problem = _spawn(order, output)
        os.close(output)
        if not problem:
            self._watch()
        seconds = time.monotonic() - started
        ended = self._end_tree()
        self._report(seconds, problem, left=not ended)
        return ended

    def _watch(self) -> None:
        poll = _polling(self._waker, self._own.fileno())
        while not self._reap():
            for descriptor, _ in poll.poll():
                if descriptor == self._waker:
                    os.read(self._waker, 4096)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        """Do as the worker says. False when the tree is to be killed, or the worker is gone."""
        try:
            word = self._own.recv(1)
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
        if not self._reap_all():
            return True
        return self._status is not None and not self._ending

    def _reap_all(self) -> bool:
        """Reap what has ended, counting what it used. Returns whether any process is left."""
        while True:
            try:
                process, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not process:
                return True
            if process == self._main:
                self._status = status
            self._cpu += used.ru_utime + used.ru_stime
            self._memory = max(self._memory, used.ru_maxrss * 1024)

    def _end_tree(self) -> bool:
        """Kill and reap all processes of the run, until there is none. Return whether that was soon."""
        until = time.monotonic() + KILLED_WITHIN
        while self._reap_all():
            if time.monotonic() > until:
                return False
            processes = _descendants(os.getpid())
            for number in (signal.SIGSTOP, signal.SIGKILL):  # one that is stopped forks no more
                for process in processes:
                    _signal(process, number)
            time.sleep(0.001)
        return True

    def _report(self, seconds: float, problem: str, *, left: bool) -> None:
        code = -signal.SIGKILL if self._status is None else os.waitstatus_to_exitcode(self._status)
        answer = {
            "code": code,
            "problem": problem[:LONGEST_PROBLEM],
            "wall": seconds,
            "cpu": self._cpu,
            "memory": self._memory,
            "left": left,
        }
        with contextlib.suppress(OSError):  # the worker is gone: nobody wants to know
            self._own.sendall(json.dumps(answer).encode())


def _wake_on_child() -> int:
    """Return a descriptor that can be read when a child has ended."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _polling(*descriptors: int) -> select.poll:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return poll


def _spawn(order: dict[str, Any], output: int) -> tuple[int, str]:
    """Start the run's process. Returns its id, and what was wrong where it could not be started."""
    uid, gid = order["uid"], order["gid"]
    dropping = (uid is not None or gid is not None) and os.geteuid() == 0
    try:
        process = subprocess.Popen(  # noqa: S603 - this is the purpose
            order["argv"],
            env=order["env"],
            cwd=order["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o022,
            user=uid,
            group=gid,
            extra_groups=[] if dropping else None,
        )
    except Exception as error:
        return 0, _reason(error, order)
    process.returncode = 0  # it is reaped here, with all the others
    return process.pid, ""


def _reason(error: Exception, order: dict[str, Any]) -> str:
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {error}"
    if error.errno == errno.ENOENT and os.path.isdir(order["cwd"]):  # noqa: PTH112 - pathlib is not imported
        return f"{order['argv'][0]}: no such program"
    return f"{error.filename or order['argv'][0]}: {error.strerror}"


def _descendants(top: int) -> list[int]:
    """Return all processes below `top`, parents first."""
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


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.kill(process, number)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
