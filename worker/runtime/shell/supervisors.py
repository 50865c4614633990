"""The worker's side of the supervisor: starts it, lets it run processes, and learns how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from shared.errors import RuntimeUnavailable
from shared.startup import FOUND_LIMIT
from shared.threads import in_thread
from worker.runtime.port import RunLostError, Sink
from worker.runtime.stages import Exit, Tail

_PROGRAM = Path(__file__).with_name("process_supervisor.py")
_CHUNK = 256 * 1024

KEEPER_ENDS_WITHIN = 30.0
"""Seconds that the end of what was killed is waited for: longer than its keeper tries."""


class Ending(msgspec.Struct, frozen=True):
    """A keeper's report of a run. Times in seconds, memory in bytes."""

    code: int
    problem: str
    wall: float
    cpu: float
    memory: int
    left: bool
    """Whether something of the run could not be killed."""


class Supervisors:
    """The keeper program, started again should it have died, and its keepers that have no run now.

    All but `start` and `close` belong to the event loop's thread."""

    def __init__(self) -> None:
        self._program: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._idle: list[socket.socket] = []
        self._making = threading.Lock()

    def start(self) -> None:
        """Start the program. Raises RuntimeUnavailable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [
                sys.executable,
                "-I",
                "-S",
                str(_PROGRAM),
                str(theirs.fileno()),
                str(FOUND_LIMIT),
            ]
            try:
                self._program = subprocess.Popen(  # noqa: S603 - our own program
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], cwd="/"
                )
            except OSError as error:
                ours.close()
                raise RuntimeUnavailable(f"cannot start local processes: {error}") from None
        self._control = ours

    def alive(self) -> bool:
        """Return whether the program runs."""
        return self._program is not None and self._program.poll() is None

    def close(self) -> None:
        """End the program."""
        for keeper in self._idle:
            keeper.close()
        self._idle.clear()
        if self._control is not None:
            self._control.close()
        if self._program is not None:
            self._program.wait()

    async def begin(self, order: LocalOrder) -> LocalProcess:
        """Have a process started. Raises RuntimeUnavailable."""
        try:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            try:
                keeper = await self._started(order, writer)
            except BaseException:
                os.close(reader)
                raise
            finally:
                os.close(writer)
        except OSError as error:
            raise RuntimeUnavailable(f"cannot start local processes: {error}") from None
        return LocalProcess(keeper, reader, self._idle.append)

    async def _started(self, order: LocalOrder, output: int) -> socket.socket:
        """Have an order carried out, its output going to `output`; return the socket of its keeper."""
        request = os.memfd_create("request", os.MFD_CLOEXEC)
        try:
            os.write(request, msgspec.json.encode(order))
            os.lseek(request, 0, os.SEEK_SET)
            return await self._ordered([request, output])
        finally:
            os.close(request)

    async def _ordered(self, order: list[int]) -> socket.socket:
        """Give an order to a keeper, and return that one's socket."""
        while self._idle:
            keeper = self._idle.pop()
            with contextlib.suppress(OSError):  # it was killed meanwhile
                socket.send_fds(keeper, [b"r"], order)
                return keeper
            keeper.close()
        keeper = await in_thread(self._new)
        try:
            socket.send_fds(keeper, [b"r"], order)
        except OSError:
            keeper.close()
            raise
        return keeper

    def _new(self) -> socket.socket:
        """Have one more keeper made; return the socket by which it is spoken to."""
        with self._making:
            if not self.alive():
                self.close()
                self.start()
            assert self._control is not None
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    socket.send_fds(self._control, [b"r"], [theirs.fileno()])
                except OSError:
                    ours.close()
                    raise
        ours.setblocking(False)
        return ours


class LocalOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start: exactly this environment; user and group None for the worker's own."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    uid: int | None = None
    gid: int | None = None


class LocalProcess:
    """A process and all that come of it. Its keeper is given back by `spare` once nothing is left of it."""

    def __init__(
        self, keeper: socket.socket, output: int, spare: Callable[[socket.socket], None]
    ) -> None:
        self._keeper: socket.socket | None = keeper
        self._output = output
        self._spare = spare
        self._over = asyncio.Event()
        self.ending: Ending | None = None

    async def run(self, sink: Sink) -> Exit:
        """Pass its output on until its end, and return that. Raises RunLostError."""
        try:
            tail = await self._pass_on(sink)
            self.ending = await self._hear()
        finally:
            self._over.set()
        if self.ending.problem:
            tail.add(self.ending.problem.encode())
            return Exit(127, tail)
        code = self.ending.code
        return Exit(code if code >= 0 else 128 - code, tail)

    @property
    def nothing_left(self) -> bool:
        """Whether it has ended with all that came of it."""
        return self.ending is not None and not self.ending.left

    def close(self) -> None:
        """Let go of it: what still runs of it is killed."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            self._spare(keeper) if self.nothing_left else keeper.close()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    async def terminate(self, grace: float) -> None:
        """End the tree: SIGTERM, `grace` seconds, SIGKILL, each by way of the keeper. What can't be killed is not
        waited for."""
        for word, patience in ((b"T", grace), (b"K", KEEPER_ENDS_WITHIN)):
            if self._keeper is not None:
                with contextlib.suppress(OSError):  # it has ended
                    self._keeper.send(word)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._over.wait()
                return

    async def _pass_on(self, sink: Sink) -> Tail:
        tail = Tail()
        os.set_blocking(self._output, False)
        while data := await self._read():
            tail.add(data)
            await sink.write(data)
        return tail

    async def _read(self) -> bytes:
        """Return some output; nothing at its end.

        Not by `connect_read_pipe`: uvloop closes such a descriptor twice, and by the second time it
        may be another thread's file.
        """
        while True:
            with contextlib.suppress(BlockingIOError):
                return os.read(self._output, _CHUNK)
            await _readable(self._output)

    async def _hear(self) -> Ending:
        keeper = self._keeper
        assert keeper is not None
        said = b""
        while True:
            with contextlib.suppress(BlockingIOError):
                with contextlib.suppress(ConnectionError):
                    said = keeper.recv(_CHUNK)
                break
            await _readable(keeper.fileno())
        try:
            return msgspec.convert(json.loads(said), Ending)
        except ValueError:
            raise RunLostError("the supervisor of the process was killed") from None


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(descriptor, _set_once, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _set_once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
