"""Commands over a store, without an engine: what the API asks for is stored, and nothing follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from coordinator.engine.new_documents import kept_tasks
from coordinator.permission_names import resolve_permissions
from coordinator.store.port import Store
from shared.errors import Conflict, NotAllowed, NotFound
from shared.ids import derived_id, new_id
from shared.model import language
from shared.model.documents import (
    Actor,
    JobDocument,
    NodeDocument,
    ScheduleDocument,
    TaskDocument,
)
from shared.model.messages import StateChanged
from shared.model.queries import Change
from shared.model.views import as_plain, job_summary

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class PlainCommands:
    """The API's commands."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.submitted: asyncio.Queue[str] = asyncio.Queue()
        self.listened = asyncio.Event()
        self._listeners: set[asyncio.Queue[StateChanged]] = set()

    async def submit(
        self,
        definition: language.JobDefinition,
        actor: Actor,
        *,
        key: str | None = None,
        body_hash: str | None = None,
        trace: str = "",
    ) -> JobDocument:
        job = self.preview(definition, actor)
        job.permissions = await resolve_permissions(self._store, definition.permissions)
        job.trace = trace
        if key is not None:
            job.id = derived_id("key", actor.id, key)
            job.body_hash = body_hash
        if not await self._store.insert(job):
            found = await self._store.get(JobDocument, job.id)
            assert found is not None
            if found.body_hash != body_hash:
                raise Conflict("the key was used with another body")
            return found
        self.submitted.put_nowait(job.id)
        await self.tell(job)
        return job

    async def rerun(
        self,
        job: JobDocument,
        definition: language.JobDefinition,
        actor: Actor,
        *,
        position: int,
        kept: Sequence[str],
        hidden_by: Actor | None = None,
        trace: str = "",
    ) -> JobDocument:
        made = self.preview(definition, actor)
        made.permissions = await resolve_permissions(
            self._store, definition.permissions, job.permissions
        )
        made.rerun_of, made.hidden_by, made.trace = job.id, hidden_by, trace
        tasks = await self._store.get_many(TaskDocument, kept)
        await self._store.insert_many(kept_tasks(made, tasks))
        await self._store.insert(made)
        self.submitted.put_nowait(f"{made.id} from {position}")
        return made

    def preview(self, definition: language.JobDefinition, actor: Actor) -> JobDocument:
        return JobDocument(
            id=new_id(),
            definition=definition,
            name=definition.name,
            description=definition.description,
            tags=definition.tags,
            task_count=len(definition.tasks),
            permissions=definition.permissions,
            created_by=actor,
            created_at=self._store.now(),
        )

    async def check_permissions(self, permissions: Sequence[language.Permission]) -> None:
        await resolve_permissions(self._store, permissions)

    async def tell(self, job: JobDocument) -> None:
        """Send the event that a job is as it is."""
        event = StateChanged(
            type="job.StateChange",
            job_id=job.id,
            state=job.state,
            at=self._store.now(),
            summary=as_plain(job_summary(job)),
        )
        for listener in self._listeners:
            listener.put_nowait(event)

    async def become(self, job_id: str, state: str, **more: Any) -> None:
        """Move a job to `state`."""
        at = self._store.now()
        fields = {"state": state, **({"ended_at": at} if state in ENDED else {}), **more}
        job = await self._store.change(Change(kind=JobDocument, id=job_id, set=fields))
        assert job is not None
        await self.tell(job)

    async def cancel(self, job: JobDocument) -> None:
        if job.state in ENDED:
            raise NotAllowed("job is not running")
        await self.become(job.id, "CANCELLED")

    async def restart(self, job: JobDocument) -> None:
        if job.state not in ("FAILED", "CANCELLED"):
            raise NotAllowed(f"job is {job.state} and can not be restarted")
        await self.become(job.id, "RUNNING")

    async def delete(self, job: JobDocument) -> None:
        if job.state not in ENDED:
            raise NotAllowed("job is still running")
        await self._store.delete(TaskDocument, {"job_id": job.id})
        await self._store.delete(JobDocument, {"id": job.id})

    async def drain(self, node_id: str, on: bool) -> None:
        node = await self._store.get(NodeDocument, node_id)
        if node is None:
            raise NotFound("node not found")
        if node.kind == "coordinator":
            raise NotAllowed("a coordinator can not be drained")
        await self._store.change(Change(kind=NodeDocument, id=node_id, set={"draining": on}))

    async def schedule(self, definition: language.JobDefinition, actor: Actor) -> ScheduleDocument:
        schedule = await self.preview_schedule(definition, actor)
        await self._store.insert(schedule)
        return schedule

    async def preview_schedule(
        self, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        assert definition.schedule is not None
        return ScheduleDocument(
            id=new_id(),
            definition=definition,
            name=definition.name,
            cron=definition.schedule.cron,
            timezone=definition.schedule.timezone or "UTC",
            created_at=self._store.now(),
            created_by=actor,
            permissions=await resolve_permissions(self._store, definition.permissions),
            next_at=self._store.now(),
        )

    async def run_schedule(self, schedule: ScheduleDocument) -> JobDocument:
        return await self.submit(schedule.definition, schedule.created_by, key=None, body_hash=None)

    async def change_schedule(
        self, schedule: ScheduleDocument, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        changed = await self.preview_schedule(definition, actor)
        changed.id = schedule.id
        await self._store.delete(ScheduleDocument, {"id": schedule.id})
        await self._store.insert(changed)
        return changed

    async def pause_schedule(self, schedule: ScheduleDocument) -> None:
        if schedule.state != "ACTIVE":
            raise NotAllowed("scheduled job is not active")
        await self._store.change(
            Change(kind=ScheduleDocument, id=schedule.id, set={"state": "PAUSED"})
        )

    async def resume_schedule(self, schedule: ScheduleDocument) -> None:
        if schedule.state != "PAUSED":
            raise NotAllowed("scheduled job is not paused")
        await self._store.change(
            Change(kind=ScheduleDocument, id=schedule.id, set={"state": "ACTIVE"})
        )

    async def delete_schedule(self, schedule: ScheduleDocument) -> None:
        await self._store.delete(ScheduleDocument, {"id": schedule.id})

    async def events(self) -> AsyncIterator[StateChanged]:
        mine: asyncio.Queue[StateChanged] = asyncio.Queue()
        self._listeners.add(mine)
        self.listened.set()
        try:
            while True:
                yield await mine.get()
        finally:
            self._listeners.discard(mine)
