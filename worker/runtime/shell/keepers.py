"""The worker's side of the keeper: starts it, has it run processes, hears their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from shared.errors import RuntimeUnavailable
from worker.runtime.faults import RunLostError
from worker.runtime.port import Sink
from worker.runtime.stages import Exit
from worker.runtime.tail import Tail

_PROGRAM = Path(__file__).with_name("keeper.py")
_CHUNK = 256 * 1024


class Ending(msgspec.Struct, frozen=True):
    """What a keeper says in the end. Times in seconds, memory in bytes."""

    code: int
    fault: str
    wall: float
    cpu: float
    memory: int


class Keepers:
    """The keeper program; started again should it have died. Its runs go on without it."""

    def __init__(self) -> None:
        self._program: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the program. Raises RuntimeUnavailable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())]
            try:
                self._program = subprocess.Popen(  # noqa: S603 - our own program
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], cwd="/"
                )
            except OSError as error:
                ours.close()
                raise RuntimeUnavailable(f"cannot start local processes: {error}") from None
        self._control = ours

    def alive(self) -> bool:
        """Whether the program runs."""
        return self._program is not None and self._program.poll() is None

    def close(self) -> None:
        """End the program."""
        if self._control is not None:
            self._control.close()
        if self._program is not None:
            self._program.wait()

    def begin(self, order: LocalOrder) -> LocalProcess:
        """Have a process started. Raises RuntimeUnavailable."""
        if not self.alive():
            self.close()
            self.start()
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        request = os.memfd_create("request", os.MFD_CLOEXEC)
        try:
            os.write(request, msgspec.json.encode(order))
            os.lseek(request, 0, os.SEEK_SET)
            assert self._control is not None
            socket.send_fds(self._control, [b"r"], [theirs.fileno(), request, writer])
        except OSError as error:
            ours.close()
            os.close(reader)
            raise RuntimeUnavailable(f"cannot start local processes: {error}") from None
        finally:
            theirs.close()
            os.close(writer)
            os.close(request)
        return LocalProcess(ours, reader)


class LocalOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start: exactly this environment; user and group None for the worker's own."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    uid: int | None = None
    gid: int | None = None


class LocalProcess:
    """A process and all that come of it."""

    def __init__(self, keeper: socket.socket, output: int) -> None:
        keeper.setblocking(False)
        self._keeper = keeper
        self._output = output
        self._over = asyncio.Event()
        self.ending: Ending | None = None

    async def run(self, sink: Sink) -> Exit:
        """Pass its output on until its end, and return that. Raises RunLostError."""
        try:
            tail = await self._pass_on(sink)
            self.ending = await self._hear()
        finally:
            self._over.set()
        if self.ending.fault:
            tail.add(self.ending.fault.encode())
            return Exit(127, tail)
        code = self.ending.code
        return Exit(code if code >= 0 else 128 - code, tail)

    def close(self) -> None:
        """Let go of it: what still runs of it is killed."""
        self._keeper.close()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    async def terminate(self, grace: float) -> None:
        """As `Live` says."""
        for word in (b"T", b"K"):
            with contextlib.suppress(OSError):  # it has ended
                self._keeper.send(word)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), grace if word == b"T" else None)
                return

    async def _pass_on(self, sink: Sink) -> Tail:
        tail = Tail()
        os.set_blocking(self._output, False)
        while data := await self._read():
            tail.add(data)
            await sink.write(data)
        return tail

    async def _read(self) -> bytes:
        """Some output; nothing at its end.

        Not by `connect_read_pipe`: uvloop closes such a descriptor twice, and by the second time it
        may be another thread's file.
        """
        while True:
            with contextlib.suppress(BlockingIOError):
                return os.read(self._output, _CHUNK)
            await self._readable()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._output, _set_once, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._output)

    async def _hear(self) -> Ending:
        loop = asyncio.get_running_loop()
        said = b""
        while part := await loop.sock_recv(self._keeper, 65536):
            said += part
        try:
            return msgspec.convert(json.loads(said), Ending)
        except ValueError:
            raise RunLostError("the keeper of the process was killed") from None


def _set_once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
