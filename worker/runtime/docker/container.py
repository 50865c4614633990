"""One container of a run, from start to end, and its output as the engine streams it.

Attached before the start, it holds everything, in order, and is the only copy: the engine is told
to keep no log. A reader that is slow slows the container, and nothing piles up anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

from docker.errors import APIError, NotFound

from worker.runtime.docker import engine, usage
from worker.runtime.docker.engine import Engine, EngineGoneError, EngineHangsError, explain
from worker.runtime.port import RunLostError, RunStoppedError, Sink, TaskError
from worker.runtime.stages import Exit, Tail

CHUNK = 256 * 1024
_HEADER = 8
_PATIENCE = 20.0
"""Seconds that a thread waits for data at a time: it must not outlive the runtime for longer."""


class Stream:
    """One attached stream."""

    def __init__(self, attached: Any, on: Engine) -> None:
        """`attached`: what the SDK's `attach_socket` of that engine gives."""
        self._engine = on
        self._attached = attached  # keeps the response, and so the connection, open
        self._tls = attached if isinstance(attached, ssl.SSLSocket) else None
        self._socket: socket.socket | None = None
        if self._tls is None:
            self._socket = socket.socket(fileno=_duplicate(attached))
            self._socket.setblocking(False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give what is printed, without the engine's framing, until the stream ends."""
        frames = Frames()
        while data := await self._receive():
            if text := frames.feed(data):
                yield text

    async def _receive(self) -> bytes:
        try:
            if self._socket is not None:
                return await asyncio.get_running_loop().sock_recv(self._socket, CHUNK)
            return await self._receive_tls()
        except (OSError, EngineGoneError):
            return b""

    async def _receive_tls(self) -> bytes:
        assert self._tls is not None
        self._tls.settimeout(_PATIENCE)
        while True:
            with contextlib.suppress(EngineHangsError):  # nothing was printed for a while
                return await self._engine.watch(self._tls.recv, CHUNK)

    def close(self) -> None:
        """Let go of it."""
        if self._socket is not None:
            self._socket.close()
        # The SDK keeps the response at the socket; closing that closes all that is under it.
        getattr(self._attached, "_response", self._attached).close()


def _duplicate(attached: Any) -> int:
    return socket.dup(attached.fileno())


class Frames:
    """Takes apart the frames of a stream, wherever it is cut."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Return what the frames in `data` hold, joined."""
        parts = []
        position, end = 0, len(data)
        while position < end:
            if self._left:
                part = data[position : position + self._left]
                parts.append(part)
                self._left -= len(part)
                position += len(part)
            else:
                position = self._begin(data, position)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin(self, data: bytes, position: int) -> int:
        wanted = _HEADER - len(self._header)
        self._header += data[position : position + wanted]
        if len(self._header) == _HEADER:
            (self._left,) = struct.unpack(">xxxxL", self._header)
            self._header = b""
        return position + wanted


_KILLED = 30.0
"""Seconds after SIGKILL until a container is given up as one that the engine can't end."""
_WAIT = 20
"""Seconds for one request that waits: a thread is not to outlive the runtime for longer."""
_VANISHING = ("removing", "dead")


class StartError(TaskError):
    """The engine could not start the container."""


class Container:
    """A created container. Nobody else of ours starts or kills it."""

    def __init__(self, on: Engine, container_id: str) -> None:
        self._engine = on
        self.id = container_id
        self.state: dict[str, Any] = {}
        self._seen = usage.Seen()
        self._refused = False
        self._started: asyncio.Event | None = None
        self._over = asyncio.Event()
        self._stopped = False

    async def run(self, sink: Sink) -> Exit:
        """Start it, pass on what it prints, and return its end. Called once.

        Raises StartError, RunLostError, RunStoppedError, and what the sink raises.
        """
        stream = await self._attach()
        try:
            await self.start()
            tail = await _pass_on(stream, sink)
            return await self._end(tail)
        finally:
            self._seen.has_ended()
            stream.close()
            self._over.set()

    async def start(self) -> None:
        """Start it. Raises StartError, RunStoppedError."""
        if self._refused:
            raise RunStoppedError
        self._started = asyncio.Event()
        self._seen.start_asked()
        try:
            await self._engine.call(self._engine.api.start, self.id)
            self._seen.has_started()
        except NotFound as error:
            if self.id in explain(error):  # and not another, whose network it is to join
                raise RunLostError("the container vanished") from None
            raise StartError(_start_error(error)) from None
        except APIError as error:
            raise StartError(_start_error(error)) from None
        finally:
            self._started.set()

    async def terminate(self, grace: float) -> None:
        """End the container: SIGTERM, `grace` seconds, SIGKILL; one that was not started is refused its start. Not
        waited for where the engine hangs."""
        self._stopped = True
        if self._started is None:
            self._refused = True
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(engine.ANSWERS_WITHIN):
                await self._started.wait()
        for name, patience in (("SIGTERM", grace), ("SIGKILL", _KILLED)):
            if self._over.is_set():
                return
            if not await self._engine.asked(self._engine.api.kill, self.id, name):
                return  # an engine that hangs; the container's removal ends it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._over.wait()

    async def _attach(self) -> Stream:
        attach = self._engine.api.attach_socket
        try:
            attached = await self._engine.call(
                attach, self.id, {"stdout": 1, "stderr": 1, "stream": 1}
            )
        except NotFound:
            raise RunLostError("the container vanished") from None
        return Stream(attached, self._engine)

    async def _end(self, tail: Tail) -> Exit:
        try:
            with _vanished():
                code = await self._wait()
                inspect = self._engine.api.inspect_container
                self.state = (await self._engine.call_until_answered(inspect, self.id))["State"]
        except EngineGoneError:
            await self._engine.back()
            raise
        if self.state.get("Status") in _VANISHING and not self._stopped:
            raise RunLostError("another program is removing the container")
        if code != 0 and not self._stopped:
            await self._engine_lives()
        return Exit(code, tail, out_of_memory=bool(self.state.get("OOMKilled")))

    async def _wait(self) -> int:
        while True:
            with contextlib.suppress(EngineHangsError):  # or the container runs on
                answer = await self._engine.watch(self._engine.api.wait, self.id, timeout=_WAIT)
                return int(answer["StatusCode"])

    async def _engine_lives(self) -> None:
        """Raise RunLostError where the engine is gone: it ends all containers, which is no failure of the task's."""
        if not await self._engine.lives():
            raise RunLostError("the engine was stopped")

    def seconds(self, script_read: float | None) -> float:
        """Return how long it ran; `script_read`: when its script was first read, in seconds since the epoch."""
        return usage.seconds(self.state, self._seen, script_read)


async def _pass_on(stream: Stream, sink: Sink) -> Tail:
    tail = Tail()
    async for data in stream.chunks():
        tail.add(data)
        await sink.write(data)
    return tail


@contextlib.contextmanager
def _vanished() -> Iterator[None]:
    try:
        yield
    except NotFound:
        raise RunLostError("the container vanished") from None
    except APIError as error:
        gone = "no such container" in explain(error).lower()
        if gone or error.status_code == 409:  # 409: its removal is in progress
            raise RunLostError(explain(error)) from None
        raise


def _start_error(error: APIError) -> str:
    return f"the container cannot be started: {explain(error)}"
