"""Stores log parts: many messages in one bulk write, then acknowledges them."""

from __future__ import annotations

import asyncio

from cachetools import LRUCache

from coordinator.effects import FlowDriver
from coordinator.effects.batching import Batcher
from coordinator.engine.task_runs import log_part
from shared.errors import StoreUnavailable
from shared.model.documents import LogPartDocument, Micros, TaskDocument
from shared.model.messages import LogWritten
from shared.model.queries import In

DELAY = 0.05
"""Seconds that parts are gathered for."""

_BATCH = 200
_HEAVIEST = 8 * 1024 * 1024
"""Characters in one write, about: a datastore must get it done well within the time that a handler has."""

REMEMBERED_RUNS = 10_000


_Taken = tuple[LogWritten, Micros, asyncio.Future[None]]
"""A message, when it came (the last part of a log, which comes with the end of its run, is stored at once), and what
to tell when it is stored."""


class LogPartWriter:
    """Takes deliveries of the queue `logs`; each is settled once its parts are stored."""

    def __init__(self, driver: FlowDriver) -> None:
        self._driver = driver
        self._runs: LRUCache[str, int] = LRUCache(REMEMBERED_RUNS)
        self._batcher: Batcher[_Taken] = Batcher(
            self._store,
            delay=DELAY,
            size=_BATCH,
            name="log-parts",
            weigh=lambda taken: sum(map(len, taken[0].parts)),
            heaviest=_HEAVIEST,
        )

    def start(self) -> None:
        """Start storing, in the background."""
        self._batcher.start()

    async def close(self) -> None:
        """Store what is gathered, and stop."""
        await self._batcher.close()

    async def take(self, message: LogWritten) -> None:
        """Store a message's parts, in a batch; return when that is done. Raises `StoreUnavailable`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batcher.add((message, self._driver.store.now(), done))
        await done

    async def _store(self, batch: list[_Taken]) -> None:
        try:
            await self._know_runs({message.task_id for message, _, _ in batch})
            parts = [
                part
                for message, at, _ in batch
                if self._counts(message)
                for part in _parts(message, at)
            ]
            if parts:
                await self._driver.store.append_log(parts)
                self._driver.events.on_log(parts)
        except Exception as error:
            await self._failed(batch, error)
            return
        for *_, done in batch:
            if not done.done():
                done.set_result(None)

    async def _failed(self, batch: list[_Taken], error: Exception) -> None:
        """Fail a batch; where one message may be at fault, store each by itself."""
        if len(batch) > 1 and not isinstance(error, StoreUnavailable):
            for each in batch:
                await self._store([each])
            return
        for *_, done in batch:
            if not done.done():
                done.set_exception(error)

    async def _know_runs(self, task_ids: set[str]) -> None:
        """Read the present run of tasks whose last known one may be old."""
        unknown = tuple(task_id for task_id in task_ids if task_id not in self._runs)
        if not unknown:
            return
        find, where = self._driver.store.find, {"id": In(unknown)}
        for task in await find(TaskDocument, where, without=TaskDocument.heavy):
            self._runs[task.id] = task.run

    def _counts(self, message: LogWritten) -> bool:
        """Return whether a message is of the run that counts, or a later one than is known here."""
        known = self._runs.get(message.task_id)
        if known is None:
            return False
        if message.run > known:
            self._runs[message.task_id] = message.run
        return message.run >= known


def _parts(message: LogWritten, at: Micros) -> list[LogPartDocument]:
    return [
        log_part(message.task_id, message.job_id, message.run, number, contents, at)
        for number, contents in enumerate(message.parts, message.first)
    ]
