"""A unix socket before a Docker engine, that can hang as an engine does: it accepts, and never answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class EngineProxy:
    """Passes on what comes to the socket `path`, unless it is frozen; on an event loop of its own."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.host = f"unix://{path}"
        self._path = path
        self._engine = engine
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._ended = asyncio.Event()
        self._passing: set[asyncio.Task[Any] | None] = set()
        """Nobody else holds one whose connection says nothing more on one side."""

    def freeze(self) -> None:
        """Pass on nothing more, in the middle of whatever is said."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def thaw(self) -> None:
        """Pass on what has come, and what comes."""
        self._loop.call_soon_threadsafe(self._flows.set)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve while the block runs."""
        listens: Future[None] = Future()
        serve = self._serve(listens)
        thread = threading.Thread(target=self._loop.run_until_complete, args=(serve,))
        thread.start()
        try:
            listens.result(10)
            yield
        finally:
            self._loop.call_soon_threadsafe(self._ended.set)
            thread.join()
            self._loop.close()

    async def _serve(self, listens: Future[None]) -> None:
        self._flows.set()
        server = await asyncio.start_unix_server(self._pass_on, self._path)
        listens.set_result(None)
        await self._ended.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        self._passing.add(this)
        far_reader, far_writer = await asyncio.open_unix_connection(self._engine)
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        far_writer.close()
        writer.close()
        self._passing.discard(this)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                target.write(data)
                await target.drain()
            await self._flows.wait()
            target.write_eof()
