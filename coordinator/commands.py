"""Commands of users: each is stored first, then carried out by any coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import msgspec
import structlog

from coordinator.effects import FlowDriver
from coordinator.engine import job_ends, job_lifecycle, new_documents, schedule_firings
from coordinator.store.port import Change
from shared.broker.port import Broker
from shared.errors import BrokerUnavailable, Conflict, NotAllowed, NotFound
from shared.ids import derived_id, new_id
from shared.model import language
from shared.model.documents import (
    GUEST,
    Actor,
    JobDocument,
    NodeDocument,
    RoleDocument,
    ScheduleDocument,
    UserDocument,
)
from shared.model.messages import Drain, JobChanged, MessageCodec, StateChanged
from shared.model.queues import JOBS_QUEUE
from shared.model.states import JOB_ENDED, NodeKind, ScheduleState
from shared.supervision import Loop, waiting

log = structlog.get_logger(__name__)

LOOK_EVERY = 0.5
"""Seconds between looks at a job that somebody waits for, should its event be missed."""


_CHANGED = (
    "definition", "name", "description", "tags", "cron", "timezone", "catchup", "permissions", "next_at",
)  # fmt: skip
"""Fields of a schedule that a change of it sets."""


class JobCommands:
    """Implements `coordinator.api.port.Commands`."""

    def __init__(self, driver: FlowDriver, broker: Broker, codec: MessageCodec) -> None:
        self._driver = driver
        self._store = driver.store
        self._broker = broker
        self._codec = codec

    # --- jobs -----------------------------------------------------------------------------------------------------

    async def submit(
        self,
        definition: language.JobDefinition,
        actor: Actor,
        *,
        key: str | None = None,
        body_hash: str | None = None,
    ) -> JobDocument:
        """Store a new job and have it begun."""
        await self._check_permissions(definition)
        job = self._made(definition, actor, key, body_hash)
        if not await self._store.insert(job):
            return await self._first_of(job)
        await self._driver.tell(job)
        self._announce(job)
        return job

    def preview(self, definition: language.JobDefinition, actor: Actor) -> JobDocument:
        """Return the job that `submit` would store."""
        return self._made(definition, actor, None, None)

    def _made(
        self,
        definition: language.JobDefinition,
        actor: Actor,
        key: str | None,
        body_hash: str | None,
    ) -> JobDocument:
        id = new_id() if key is None else derived_id("idempotency", actor.id, key)
        job = new_documents.new_job(
            definition, id, self._store.now(), created_by=actor, body_hash=body_hash
        )
        return job_lifecycle.with_hooks(job)

    async def _first_of(self, job: JobDocument) -> JobDocument:
        first = await self._store.get(JobDocument, job.id)
        if first is None or first.deleted_at is not None:
            raise NotFound("the job created with this Idempotency-Key has been deleted")
        if first.body_hash != job.body_hash:
            raise Conflict("this Idempotency-Key was used for another job")
        return first

    async def _check_permissions(self, definition: language.JobDefinition) -> None:
        for index, permission in enumerate(definition.permissions):
            if permission.user and permission.user != GUEST.username:
                found = await self._store.find(UserDocument, {"username": permission.user}, limit=1)
                if not found:
                    raise NotAllowed(
                        f"permissions[{index}].user: there is no user {permission.user!r}"
                    )
            if permission.role and not await self._store.find(
                RoleDocument, {"name": permission.role}, limit=1
            ):
                raise NotAllowed(f"permissions[{index}].role: there is no role {permission.role!r}")

    def _announce(self, job: JobDocument) -> None:
        """Have a stored job followed: by whoever takes the message, or here, should the broker be away."""
        self._driver.soon(self._tell(job))

    async def _tell(self, job: JobDocument) -> None:
        try:
            await self._broker.publish(JOBS_QUEUE, self._codec.encode(JobChanged(job_id=job.id)))
        except BrokerUnavailable as error:
            log.info("a job is waiting for the broker", job=job.id, reason=str(error))

    async def cancel(self, job: JobDocument) -> None:
        """Store that a job is cancelled; what runs is stopped right after."""
        image = await self._driver.carry_out(job_ends.cancelled_by_user(job))
        if image is None:
            raise NotAllowed("job is not running")
        self._driver.follow_soon([image])

    async def restart(self, job: JobDocument) -> None:
        """Store that a job goes on."""
        image = await self._driver.carry_out(job_lifecycle.restarted_by_user(job))
        if image is None:
            present = await self._store.get(JobDocument, job.id)
            state = present.state if present is not None else job.state
            raise NotAllowed(f"job is {state} and can not be restarted")
        self._driver.follow_soon([image])

    async def delete(self, job: JobDocument) -> None:
        """Mark an ended job for removal; it is removed right after, with the sub-jobs attached to it."""
        marked = await self._driver.carry_out(job_ends.marked_for_removal(job.id))
        if not marked:
            present = await self._store.get(JobDocument, job.id)
            if present is None or present.deleted_at is not None:
                raise NotFound(f"there is no job {job.id}")
            raise NotAllowed("job is still running; cancel it first")
        self._driver.follow_soon(marked)

    async def wait_ended(self, job_id: str, timeout: float) -> JobDocument | None:
        """Return the job once it has ended."""
        try:
            async with asyncio.timeout(timeout):
                return await self._ended(job_id)
        except TimeoutError:
            return None

    async def _ended(self, job_id: str) -> JobDocument | None:
        woken = asyncio.Event()
        async with Loop("wait for a job", lambda: self._wake(job_id, woken), about=job_id):
            while True:
                job = await self._store.get(JobDocument, job_id)
                if job is None or job.state in JOB_ENDED:
                    return job
                await self._next_look(woken)

    async def _next_look(self, woken: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await woken.wait()
        except TimeoutError:
            return
        woken.clear()

    async def _wake(self, job_id: str, woken: asyncio.Event) -> None:
        with waiting():
            async for event in self.events():
                if event.job_id == job_id and event.state in JOB_ENDED:
                    woken.set()

    # --- nodes ----------------------------------------------------------------------------------------------------

    async def drain(self, node_id: str, on: bool) -> None:
        """Store that a worker is to take nothing new, or to do so again, and tell it; its beats have that repeated."""
        node = await self._store.get(NodeDocument, node_id)
        if node is None:
            raise NotFound(f"there is no node {node_id}")
        if node.kind != NodeKind.WORKER:
            raise NotAllowed("a coordinator can not be drained")
        asked = {"draining": on, "drain_asked": on}
        await self._store.change(Change(kind=NodeDocument, id=node_id, set=asked))
        await self._driver.outbox.send(node_id, Drain(on=on))

    # --- schedules ------------------------------------------------------------------------------------------------

    async def schedule(self, definition: language.JobDefinition, actor: Actor) -> ScheduleDocument:
        """Store a schedule."""
        await self._check_permissions(definition)
        schedule = self.preview_schedule(definition, actor)
        await self._store.insert(schedule)
        return schedule

    def preview_schedule(
        self, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        """Return the schedule that `schedule` would store."""
        assert definition.schedule is not None
        at = self._store.now()
        schedule = ScheduleDocument(
            id=new_id(),
            definition=msgspec.structs.replace(definition, schedule=None),
            name=definition.name,
            description=definition.description,
            tags=list(definition.tags),
            cron=definition.schedule.cron,
            timezone=definition.schedule.timezone or "UTC",
            catchup=definition.schedule.catchup,
            created_at=at,
            created_by=actor,
            permissions=list(definition.permissions),
        )
        schedule.next_at = schedule_firings.next_firing(schedule, at)
        return schedule

    async def pause_schedule(self, schedule: ScheduleDocument) -> None:
        """Pause a schedule."""
        fields = {"state": ScheduleState.PAUSED, "next_at": None}
        if await self._move_schedule(schedule, ScheduleState.ACTIVE, fields) is None:
            raise NotAllowed("scheduled job is not active")

    async def resume_schedule(self, schedule: ScheduleDocument) -> None:
        """Resume a schedule; firings missed meanwhile are not made up."""
        fields = {
            "state": ScheduleState.ACTIVE,
            "next_at": schedule_firings.next_firing(schedule, self._store.now()),
        }
        if await self._move_schedule(schedule, ScheduleState.PAUSED, fields) is None:
            raise NotAllowed("scheduled job is not paused")

    async def _move_schedule(
        self, schedule: ScheduleDocument, source: ScheduleState, fields: Mapping[str, object]
    ) -> ScheduleDocument | None:
        return await self._store.change(
            Change(kind=ScheduleDocument, id=schedule.id, where={"state": source}, set=fields)
        )

    async def run_schedule(self, schedule: ScheduleDocument) -> JobDocument:
        """Make a job of a schedule now, besides its firings."""
        made = schedule_firings.job_of(schedule, new_id(), self._store.now())
        job = job_lifecycle.with_hooks(made)
        await self._store.insert(job)
        await self._driver.tell(job)
        self._announce(job)
        return job

    async def change_schedule(
        self, schedule: ScheduleDocument, definition: language.JobDefinition
    ) -> ScheduleDocument:
        """Have a schedule make other jobs, at other times, from now on."""
        await self._check_permissions(definition)
        changed = self.preview_schedule(definition, schedule.created_by)
        changed.created_at = schedule.created_at
        if schedule.state == ScheduleState.ACTIVE:
            changed.next_at = schedule_firings.next_firing(changed, self._store.now())
        else:
            changed.next_at = None
        fields = {name: getattr(changed, name) for name in _CHANGED}
        image = await self._move_schedule(schedule, schedule.state, {**fields, "late": 0})
        if image is None:
            raise Conflict("the scheduled job was changed meanwhile: try again")
        return image

    async def delete_schedule(self, schedule: ScheduleDocument) -> None:
        """Delete a schedule; jobs already made stay."""
        if not await self._store.delete(ScheduleDocument, {"id": schedule.id}):
            raise NotFound(f"there is no scheduled job {schedule.id}")

    # --- events ---------------------------------------------------------------------------------------------------

    def events(self) -> AsyncIterator[StateChanged]:
        """Yield state changes from now on."""
        return self._driver.events.read()
