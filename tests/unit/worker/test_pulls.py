"""Pulls that stall: they end with a clear error, and their threads and connections are free again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from worker.runtime.docker import engine as engine_module
from worker.runtime.docker import images as images_module
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.images import Images, Layers, UsedImages
from worker.runtime.port import TaskError

STALLED = "image 'r.example/a:1' cannot be pulled: no progress for "


class FakeEngine(ThreadingUnixStreamServer):
    """An engine that has no image, and whose pulls do what the test says."""

    daemon_threads = True
    frozen = False

    def __init__(self, path: Path, pull: Callable[[Any], None]) -> None:
        super().__init__(str(path), _Handler)
        self.pull = pull
        self.pulls = 0
        self.left = threading.Event()
        """Set when a client leaves a pull that has not ended."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeEngine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        while self.server.frozen:
            time.sleep(0.01)
        if "/images/" in self.path:
            return self.answer(404, {"message": "No such image"})
        return self.answer(200, {"ApiVersion": "1.44", "Components": []})

    def do_POST(self) -> None:
        self.server.pulls += 1
        try:
            self.server.pull(self)
        except OSError:
            self.server.left.set()
        self.close_connection = True

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def step(self, status: str, current: int = 0) -> None:
        detail = {"current": current, "total": 2**30}
        step = {"id": "layer", "status": status, "progressDetail": detail}
        self.chunk(json.dumps(step).encode() + b"\n")

    def log_message(self, *_: object) -> None: ...


def silent(said: _Handler) -> None:
    """Never answer."""
    said.connection.settimeout(None)
    if not said.connection.recv(1):
        raise ConnectionError


def silent_after_a_step(said: _Handler) -> None:
    said.begin()
    said.step("Downloading", 1000)
    silent(said)


def byte_by_byte(said: _Handler) -> None:
    """Send a step that never ends."""
    said.begin()
    while True:
        said.chunk(b" ")
        time.sleep(0.02)


def a_byte_a_step(said: _Handler) -> None:
    """Tell of a download that comes a byte at a time."""
    said.begin()
    for current in range(10**6):
        said.step("Downloading", current)
        time.sleep(0.02)


def slow(said: _Handler) -> None:
    """Take longer than a pull may stand still, and move all the time."""
    said.begin()
    for current in range(8):
        said.step("Downloading", current * 2**20)
        time.sleep(0.05)
    for seconds in range(8):
        said.step("Extracting", seconds)
        time.sleep(0.05)
    said.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving(path: Path, pull: Callable[[Any], None]) -> Iterator[FakeEngine]:
    with FakeEngine(path, pull) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[tuple[Images, ThreadPoolExecutor]]:
    engine = Engine(f"unix://{tmp_path}/engine.sock", "")
    await engine.connect()
    try:
        yield Images(engine, UsedImages(tmp_path / "images")), engine._threads
    finally:
        await engine.close()


async def say(_: str) -> None: ...


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "SAY_EVERY", 0.02)
    monkeypatch.setattr(images_module, "STALLED_AFTER", 0.5)
    monkeypatch.setattr(engine_module, "LONGEST_SILENCE", 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("pull", [silent, silent_after_a_step, byte_by_byte, a_byte_a_step])
async def test_a_pull_that_stalls_fails_and_is_left(
    pull: Callable[[Any], None], tmp_path: Path
) -> None:
    with serving(tmp_path / "engine.sock", pull) as server:
        async with connected(tmp_path) as (images, threads):
            with pytest.raises(TaskError) as stalled:
                await asyncio.wait_for(images.pull("r.example/a:1", None, say), 5)
            assert str(stalled.value).startswith(STALLED)
            assert await asyncio.to_thread(server.left.wait, 5)
            assert await asyncio.to_thread(_all_free, threads)


def _all_free(threads: ThreadPoolExecutor) -> bool:
    """Return whether all threads of a pool are soon without work."""
    busy = len(threads._threads)
    return all(threads._idle_semaphore.acquire(timeout=5) for _ in range(busy))


async def test_a_pull_that_is_slow_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path / "engine.sock", slow):
        async with connected(tmp_path) as (images, _):
            await asyncio.wait_for(images.pull("r.example/a:1", None, say), 5)


@pytest.mark.slow
async def test_an_engine_that_hangs_is_not_taken_for_a_registry_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again once it answers."""
    monkeypatch.setattr(engine_module, "REQUEST_TIMEOUT", 0.1)

    def hanging_once(said: _Handler) -> None:
        said.server.frozen = said.server.pulls == 1
        (silent if said.server.frozen else slow)(said)

    with serving(tmp_path / "engine.sock", hanging_once) as server:
        async with connected(tmp_path) as (images, _):
            await asyncio.wait_for(images.pull("r.example/a:1", None, say), 10)
            assert server.pulls == 2


def test_what_is_told_again_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    layers = Layers()
    told: list[tuple[dict[str, Any], float]] = [
        ({"id": "a", "status": "Waiting"}, 0),
        ({"id": "a", "status": "Waiting"}, 1),
        ({"id": "a", "status": "Downloading", "progressDetail": {"current": 1, "total": 9}}, 0),
        ({"id": "a", "status": "Downloading", "progressDetail": {"current": 2, "total": 9}}, 1),
        ({"id": "b", "status": "Downloading", "progressDetail": {"current": 70_000}}, 0),
        ({"id": "b", "status": "Downloading", "progressDetail": {"current": 200_000}}, 0),
        ({"id": "b", "status": "Downloading", "progressDetail": {"current": 0}}, 0),
        ({"id": "a", "status": "Extracting", "progressDetail": {"current": 1}}, 0),
        ({"id": "a", "status": "Extracting", "progressDetail": {"current": 2}}, 0),
        ({"status": "Status: Downloaded newer image"}, 0),
    ]
    for step, standstill in told:
        now += 1
        layers.hear(step)
        assert layers.standstill() == standstill, step
