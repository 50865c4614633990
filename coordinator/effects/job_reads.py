"""Looks at how jobs stand, shared by those who ask at about the same time."""

from __future__ import annotations

import asyncio

from coordinator.engine.orphans import WITHOUT_BIG
from coordinator.store.port import Store
from shared.model.documents import JobDocument
from shared.model.queries import In
from shared.supervision import start_task


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
            found = await self._store.find(JobDocument, {"id": In(asked)}, without=WITHOUT_BIG)
        return {job.id: job for job in found}
