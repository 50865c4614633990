"""Deletes jobs with `autoDelete` and, after their retention time, ended jobs, old logs and old nodes."""

from __future__ import annotations

from coordinator.effects import FlowDriver
from coordinator.engine.job_ends import marked_for_removal
from coordinator.store.port import Below
from shared.model.documents import MICROS_PER_SECOND, DeliveryDocument, JobDocument, NodeDocument
from shared.model.states import DeliveryState
from shared.supervision import Loop

_EVERY = 1.0
"""Seconds between looks."""

REMOVED_AT_ONCE = 100
LOG_LIMIT = 5_000
NODES: float = 30 * 24 * 3600
"""Seconds that a node that is gone is remembered, so that what it left on a host can still be told to be dead's."""


class RetentionTimer:
    """Deletes what is due. Deleting twice deletes once, so coordinators need not agree who does it."""

    def __init__(self, driver: FlowDriver, jobs: float, logs: float) -> None:
        self._driver = driver
        self._store = driver.store
        self._jobs = jobs
        self._logs = logs
        self._turn = 0
        self._loop = Loop("retention", self._look, every=_EVERY)

    def start(self) -> None:
        """Start deleting what is old, in the background."""
        self._loop.start()

    async def close(self) -> None:
        """Delete no more, cutting a round short."""
        await self._loop.close()

    async def _look(self) -> None:
        now = self._store.now()
        await self._delete_jobs({"delete_at": Below(now + 1)})
        self._turn += 1
        if self._turn % 60 == 1:
            await self._delete_old(now)

    async def _delete_old(self, now: int) -> None:
        if self._jobs:
            await self._delete_jobs({"ended_at": Below(now - int(self._jobs * MICROS_PER_SECOND))})
        if self._logs:
            await self._store.purge_logs(now - int(self._logs * MICROS_PER_SECOND), LOG_LIMIT)
        past = now - int(NODES * MICROS_PER_SECOND)
        await self._store.delete(NodeDocument, {"closed": True, "last_heartbeat_at": Below(past)})
        delivered = {"state": DeliveryState.DELIVERED, "due_at": Below(past)}
        await self._store.delete(DeliveryDocument, delivered)

    async def _delete_jobs(self, where: dict[str, object]) -> None:
        unmarked = {**where, "deleted_at": None}
        for job in await self._store.find(JobDocument, unmarked, limit=REMOVED_AT_ONCE):
            if job.ended_at is not None and not job.then:
                await self._driver.handle(marked_for_removal(job.id))
