"""Writes and reads of many callers gathered for a short time, and made in batches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from coordinator.store.port import Store
from shared.model.documents import JobDocument
from shared.model.queries import In
from shared.supervision import Loop, start_task, waiting

log = structlog.get_logger(__name__)


_T = TypeVar("_T")


class Batcher(Generic[_T]):
    """Hands items to `flush` in batches: after `delay` seconds, or when `size` of them wait.

    A batch ends before it weighs more than `heaviest`, by what `weigh` says of each item: one that is heavier by itself
    goes alone. Batches are handed on one after another. `flush` must not raise: what it can't do it drops or keeps
    itself."""

    def __init__(
        self,
        flush: Callable[[list[_T]], Awaitable[None]],
        *,
        delay: float,
        size: int,
        name: str,
        weigh: Callable[[_T], int] = lambda _: 0,
        heaviest: int = 0,
    ) -> None:
        self._flush = flush
        self._delay = delay
        self._size = size
        self._weigh = weigh
        self._heaviest = heaviest
        self._name = name
        self._loop = Loop(name, self._work)
        self._items: list[_T] = []
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False

    def start(self) -> None:
        """Start handing batches on, in the background."""
        self._loop.start()

    def add(self, item: _T) -> None:
        """Add an item to the next batch."""
        self._items.append(item)
        self._some.set()
        if len(self._items) >= self._size:
            self._full.set()

    async def close(self) -> None:
        """Hand on what is left, and stop."""
        self._closing = True
        self._some.set()
        self._full.set()
        await self._loop.wait()

    async def _work(self) -> None:
        while True:
            with waiting():
                await self._some.wait()
            if not self._closing and self._delay:
                await self._moment()
            batch = self._next_batch()
            if self._items:
                self._full.set()
            else:
                self._some.clear()
                self._full.clear()
            if batch:
                await self._hand_on(batch)
            if self._closing and not self._items:
                return

    def _next_batch(self) -> list[_T]:
        count = weight = 0
        for item in itertools.islice(self._items, self._size):
            weight += self._weigh(item)
            if count and weight > self._heaviest:
                break
            count += 1
        batch, self._items = self._items[:count], self._items[count:]
        return batch

    async def _moment(self) -> None:
        try:
            async with asyncio.timeout(self._delay):
                await self._full.wait()
        except TimeoutError:
            return

    async def _hand_on(self, batch: list[_T]) -> None:
        try:
            await self._flush(batch)
        except Exception:
            log.exception("a batch was dropped", batch=self._name, size=len(batch))


class JobLooks:
    """Reads jobs. A read begins after all who share it have asked: who asks while one is on its way shares the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: set[str] = set()
        self._next: asyncio.Task[dict[str, JobDocument]] | None = None
        self._reading = asyncio.Lock()

    async def look(self, job_id: str) -> JobDocument | None:
        """Return a job without its big fields, read after this was called."""
        self._asked.add(job_id)
        if self._next is None:
            self._next = start_task(self._read(), "look at jobs")
        return (await asyncio.shield(self._next)).get(job_id)

    async def _read(self) -> dict[str, JobDocument]:
        async with self._reading:
            asked, self._asked, self._next = tuple(self._asked), set(), None
            found = await self._store.find(
                JobDocument, {"id": In(asked)}, without=JobDocument.heavy
            )
        return {job.id: job for job in found}
