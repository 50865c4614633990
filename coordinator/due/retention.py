"""Deletes jobs with `autoDelete` and, after their retention time, ended jobs, old logs and old nodes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from coordinator.effects import FlowDriver
from coordinator.engine import pulse
from coordinator.engine.job_ends import marked_for_removal
from coordinator.store.port import Above, Below, In, Where
from shared.model.documents import (
    MICROS_PER_SECOND,
    AuditDocument,
    DeliveryDocument,
    JobDocument,
    LogPartDocument,
    Micros,
    NodeDocument,
    TokenDocument,
    TombstoneDocument,
)
from shared.model.states import DeliveryState
from shared.supervision import Loop, came_round

_EVERY = 1.0
"""Seconds between looks."""

JOBS_READ: Final = 500
REMOVED_AT_ONCE: Final = 16
"""Jobs that are marked, and begin to go, side by side."""

LOG_PARTS_READ: Final = 5_000
AGE_EVERY: Final = 60
"""Looks between those at what is old."""

YOUNG_ERA: Final[Micros] = 600 * MICROS_PER_SECOND
"""For so long after things stood still, or a clock jumped, nothing is deleted for its age."""

NODES: float = 30 * 24 * 3600
"""Seconds that a node that is gone is remembered, so that what it left on a host can still be told to be dead's."""


EXPIRED: Final[Micros] = 24 * 3600 * MICROS_PER_SECOND
"""For so long a token that has expired is still listed."""

REMEMBERED: Final[Micros] = 24 * 3600 * MICROS_PER_SECOND
"""For so long the id of a job that was deleted is kept."""


class RetentionTimer:
    """Deletes what is due, until nothing is. Deleting twice deletes once: coordinators need not agree who does it."""

    def __init__(self, driver: FlowDriver, jobs: float, logs: float, audit: float = 0.0) -> None:
        self._driver = driver
        self._store = driver.store
        self._jobs = int(jobs * MICROS_PER_SECOND)
        self._logs = int(logs * MICROS_PER_SECOND)
        self._audit = int(audit * MICROS_PER_SECOND)
        self._turn = 0
        self._places = asyncio.Semaphore(REMOVED_AT_ONCE)
        self._loop = Loop("retention", self.look, every=_EVERY)

    def start(self) -> None:
        """Start deleting what is old, in the background."""
        self._loop.start()

    async def close(self) -> None:
        """Delete no more, cutting a round short."""
        await self._loop.close()

    async def look(self) -> None:
        """Delete all that is due now; what is old, at every so many looks."""
        now = self._store.now()
        await self._remove_jobs({"delete_at": Below(now + 1)}, "delete_at")
        self._turn += 1
        if self._turn % AGE_EVERY == 1:
            await self._delete_old(now)

    async def _remove_jobs(self, where: Where, order: str) -> None:
        """Mark the jobs that match, and have them begin to go; those with something left to do wait for that."""
        busy = 0
        while True:
            found = await self._store.find(
                JobDocument,
                {**where, "deleted_at": None},
                (order,),
                limit=JOBS_READ,
                skip=busy,
                without=JobDocument.heavy,
            )
            ready = [job.id for job in found if job.ended_at is not None and not job.then]
            busy += len(found) - len(ready)
            random.shuffle(ready)  # coordinators that look at once are not to do the same first
            await asyncio.gather(*map(self._remove, ready))
            came_round()
            if len(found) < JOBS_READ:
                return

    async def _remove(self, job_id: str) -> None:
        async with self._places:
            await self._driver.handle(marked_for_removal(job_id))

    async def _delete_old(self, now: Micros) -> None:
        if now - await self._driver.carry_out(pulse.era_began()) < YOUNG_ERA:
            return
        if self._jobs:
            await self._remove_jobs({"ended_at": Below(now - self._jobs)}, "ended_at")
        if self._logs:
            await self._delete_logs(now - self._logs)
        await self._store.delete(TokenDocument, {"expires_at": Below(now - EXPIRED)})
        await self._store.delete(TombstoneDocument, {"buried_at": Below(now - REMEMBERED)})
        if self._audit:
            await self._store.delete(AuditDocument, {"sealed_at": Below(now - self._audit)})
        past = now - int(NODES * MICROS_PER_SECOND)
        await self._store.delete(NodeDocument, {"closed": True, "last_heartbeat_at": Below(past)})
        delivered = {"state": DeliveryState.DELIVERED, "due_at": Below(past)}
        await self._store.delete(DeliveryDocument, delivered)

    async def _delete_logs(self, before: Micros) -> None:
        """Delete the parts made before `before` of jobs that have ended."""
        after = 0
        while True:
            parts = await self._store.find(
                LogPartDocument,
                {"created_at": Above(after)},
                ("created_at",),
                limit=LOG_PARTS_READ,
                without=("contents",),
            )
            old = [part for part in parts if part.created_at < before]
            for job_id in await self._ended({part.job_id for part in old}):
                whole = {"job_id": job_id, "created_at": Below(before)}
                while await self._store.delete(LogPartDocument, whole, LOG_PARTS_READ):
                    came_round()
            if len(old) < LOG_PARTS_READ:
                return
            last = old[-1].created_at
            after = last - 1 if last - 1 > after else last

    async def _ended(self, job_ids: set[str]) -> Sequence[str]:
        """Return those of these jobs that do not go on: none of their logs is read while it grows."""
        if not job_ids:
            return ()
        where = {"id": In(tuple(job_ids)), "ended_at": None}
        going_on = await self._store.find(JobDocument, where, without=JobDocument.heavy)
        return sorted(job_ids - {job.id for job in going_on})
