"""What containers print, from an engine behind TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest

from worker.runtime.docker import container
from worker.runtime.docker.container import Stream
from worker.runtime.docker.engine import Engine

STREAMS = 64
"""More than a process has threads of its own for what is short."""


async def test_containers_that_print_nothing_hold_no_thread_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container, "_PATIENCE", 3.0)
    engine = Engine("", "")
    context = ssl.create_default_context()
    pairs = [socket.socketpair() for _ in range(STREAMS)]
    wraps = [
        context.wrap_socket(one, server_hostname="engine", do_handshake_on_connect=False)
        for one, _ in pairs
    ]
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(Stream(wrap, engine)._receive()) for wrap in wraps]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await asyncio.to_thread(time.monotonic)
        assert time.monotonic() - began < 1
        for _, far in pairs:
            far.close()
        assert await asyncio.gather(*readers) == [b""] * STREAMS, "the streams ended"
    for wrap in wraps:
        wrap.close()
    await engine.close()
