"""Commands of users: each is stored first, then carried out by any coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import structlog

from coordinator.effects import FlowDriver
from coordinator.effects.flow_driver import ready_to_hide
from coordinator.engine import job_ends, job_lifecycle, new_documents, schedule_firings
from coordinator.permission_names import resolve_permissions
from coordinator.store.port import Change
from shared.broker.port import Broker
from shared.errors import BrokerUnavailable, Conflict, NotAllowed, NotFound
from shared.ids import derived_id, new_id
from shared.model import language
from shared.model.cron import parse_at
from shared.model.declared_secrets import hidden_values, secret_values
from shared.model.documents import (
    MICROS_PER_SECOND,
    Actor,
    JobDocument,
    Micros,
    NodeDocument,
    ScheduleDocument,
    TaskDocument,
)
from shared.model.messages import Drain, JobChanged, MessageCodec, StateChanged
from shared.model.queues import JOBS_QUEUE
from shared.model.rules import MAX_INHERITED_BYTES, size_of_secrets
from shared.model.states import NodeKind, ScheduleState
from shared.model.views.redacted import secrets_of, tells
from shared.redaction import Redactor
from shared.threads import in_thread

log = structlog.get_logger(__name__)

_KEPT_AT_ONCE = 8
"""Tasks that are copied at a time: each may be as large as some MiB."""

_CHANGED = (
    "definition", "name", "description", "tags", "cron", "at", "timezone", "catchup", "overlap", "permissions",
    "next_at", "created_by",
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
        trace: str = "",
    ) -> JobDocument:
        """Store a new job and have it begun."""
        permissions = await resolve_permissions(self._store, definition.permissions)
        await self._ready_to_hide(definition)
        job = self._made(definition, actor, key, body_hash)
        job.permissions = permissions
        job.trace = trace
        if not await (self._store.insert(job) if key is None else self._driver.insert_job(job)):
            return await self._first_of(job)
        await self._driver.tell(job)
        self._announce(job)
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
        """Store a new job made from another."""
        above: Sequence[str] = ()
        # For anybody else nothing hidden is left in it; to hide it nevertheless would confirm guesses.
        if hidden_by or (job.hidden_by or job.created_by).is_same(actor):
            above = await _inherited(job, definition, position)
        await self._ready_to_hide(definition, above)
        made = self._made(definition, actor, None, None, above)
        made.permissions = await resolve_permissions(
            self._store, definition.permissions, job.permissions
        )
        if size_of_secrets(secrets_of(made)) > MAX_INHERITED_BYTES:
            raise NotAllowed(
                f"more than {MAX_INHERITED_BYTES // 1024} KiB of secret values, with those of the job that it is made "
                "from"
            )
        made.trace = trace
        made.rerun_of = job.id
        made.hidden_by = hidden_by
        made.position = position - 1
        made.progress = new_documents.progress_of(made.position, made.task_count)
        if kept:
            await self._insert_with(made, kept)
        else:
            await self._store.insert(made)
        await self._driver.tell(made)
        self._announce(made)
        return made

    async def _insert_with(self, made: JobDocument, kept: Sequence[str]) -> None:
        """Store a job, and copies of what is kept in it. Until they are all there it is one that is to be removed: so
        nothing of it stays, should this process die meanwhile."""
        unready = job_lifecycle.unready(made)
        await self._store.insert(unready)
        for first in range(0, len(kept), _KEPT_AT_ONCE):
            some = kept[first : first + _KEPT_AT_ONCE]
            tasks = await self._store.get_many(TaskDocument, some)
            await self._store.insert_many(new_documents.kept_tasks(made, tasks))
        if await self._driver.carry_out(job_lifecycle.made_ready(unready, made.then)) is None:
            raise Conflict("the job was removed before it could begin: try again")

    def preview(self, definition: language.JobDefinition, actor: Actor) -> JobDocument:
        """Return the job that `submit` would store."""
        return self._made(definition, actor, None, None)

    async def check_permissions(self, permissions: Sequence[language.Permission]) -> None:
        """Raise `NotAllowed` where a permission names a user or a role that does not exist."""
        await resolve_permissions(self._store, permissions)

    async def _ready_to_hide(
        self, definition: language.JobDefinition, inherited: Sequence[str] = ()
    ) -> None:
        keys = self._driver.bounds.redaction_keys
        await ready_to_hide({*inherited, *hidden_values(definition, keys)})

    def _made(
        self,
        definition: language.JobDefinition,
        actor: Actor,
        key: str | None,
        body_hash: str | None,
        inherited: Sequence[str] = (),
    ) -> JobDocument:
        id = new_id() if key is None else derived_id("idempotency", actor.id, key)
        job = new_documents.new_job(
            definition,
            id,
            self._store.now(),
            keys=self._driver.bounds.redaction_keys,
            inherited=inherited,
            created_by=actor,
            body_hash=body_hash,
        )
        return job_lifecycle.with_hooks(job)

    async def _first_of(self, job: JobDocument) -> JobDocument:
        first = await self._store.get(JobDocument, job.id)
        if first is None or first.deleted_at is not None:
            raise NotFound("the job created with this Idempotency-Key has been deleted")
        if not first.created_by.is_same(job.created_by):
            raise Conflict("this Idempotency-Key was used by another user of this name")
        if first.body_hash != job.body_hash:
            raise Conflict("this Idempotency-Key was used for another job")
        return first

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
        schedule = await self.preview_schedule(definition, actor)
        await self._store.insert(schedule)
        return schedule

    async def preview_schedule(
        self, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        """Return the schedule that `schedule` would store."""
        assert definition.schedule is not None
        permissions = await resolve_permissions(self._store, definition.permissions)
        await self._ready_to_hide(definition)
        at = self._store.now()
        hidden = hidden_values(definition, self._driver.bounds.redaction_keys)
        schedule = ScheduleDocument(
            id=new_id(),
            definition=msgspec.structs.replace(definition, schedule=None),
            **new_documents.found_by(definition, hidden),
            cron=definition.schedule.cron,
            at=_single_firing(definition.schedule, at),
            timezone=definition.schedule.timezone or "UTC",
            catchup=definition.schedule.catchup,
            overlap=definition.schedule.overlap,
            created_at=at,
            created_by=actor,
            permissions=permissions,
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
        await self._ready_to_hide(schedule.definition)
        keys = self._driver.bounds.redaction_keys
        made = schedule_firings.job_made_by_hand(schedule, new_id(), self._store.now(), keys)
        job = job_lifecycle.with_hooks(made)
        await self._store.insert(job)
        last = {"fired_at": job.created_at, "last_job_id": job.id}
        await self._store.change_many([Change(kind=ScheduleDocument, id=schedule.id, set=last)])
        await self._driver.tell(job)
        self._announce(job)
        return job

    async def change_schedule(
        self, schedule: ScheduleDocument, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        """Have a schedule make other jobs, at other times, from now on, which are those of whoever says so."""
        changed = await self.preview_schedule(definition, actor)
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


async def _inherited(
    job: JobDocument, definition: language.JobDefinition, position: int
) -> list[str]:
    """Return what must not be shown of a job in one made from it. Secrets that were replaced are among it where results
    are kept, which can hold them, or where one is still written in the definition."""
    replaced = {*secret_values(job.definition)} - {*secret_values(definition)}
    if position > 1 or (
        replaced and await in_thread(lambda: tells(definition, Redactor(replaced)))
    ):
        return secrets_of(job)
    return job.inherited_secrets


def _single_firing(schedule: language.ScheduleDefinition, now: Micros) -> Micros | None:
    """Return when a schedule fires that fires once. Raises `NotAllowed` where that time has passed."""
    if not schedule.at:
        return None
    moment = parse_at(schedule.at, datetime.fromtimestamp(now / MICROS_PER_SECOND, UTC))
    at = round(moment.timestamp() * MICROS_PER_SECOND)
    if at <= now:
        raise NotAllowed(f"schedule.at: {schedule.at} has passed")
    return at
