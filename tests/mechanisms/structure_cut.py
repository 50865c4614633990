"""Intents, `open`, second looks, slots, restarts, and what the sweeper finds: cut one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from coordinator.due import overdue_intents, retention, webhook_limits
from coordinator.due.overdue_intents import OverdueIntents
from coordinator.due.retention import RetentionTimer
from coordinator.effects import FlowDriver, fan_outs
from coordinator.effects.evaluations import Evaluations
from coordinator.effects.outbox import Outbox
from coordinator.engine import (
    composites,
    flow,
    given_up,
    job_lifecycle,
    new_documents,
    orphans,
    removal,
    repairs,
    schedule_firings,
    slots,
    task_ends,
    task_runs,
    withdrawal,
)
from coordinator.engine.flow import Flow
from coordinator.store.indexes import INDEXES
from coordinator.store.port import Change
from coordinator.store.sqlite import schema
from shared.errors import BrokerUnavailable
from shared.expressions import Texts
from shared.model.documents import Document, Intent, JobDocument, ScheduleDocument, TaskDocument
from tests.faults.ports import Died
from tests.mechanisms.cutting import AnyChange, idle, nothing, rewrite_changes, unlooked
from tests.simulation import store as memory_store


def intents(patch: pytest.MonkeyPatch) -> None:
    """What follows from a write is known to whoever made it, and not kept with it."""
    _unkept_changes(patch)
    _unkept_inserts(patch)


def _unkept_changes(patch: pytest.MonkeyPatch) -> None:
    change, change_first = FlowDriver._change, FlowDriver._change_first

    async def changed(self: FlowDriver, effect: AnyChange) -> Document | None:
        image = await change(self, msgspec.structs.replace(effect, add_then=()))
        return _with(image, effect.add_then)

    async def changed_first(self: FlowDriver, effect: flow.ChangeFirst) -> Document | None:
        image = await change_first(self, msgspec.structs.replace(effect, add_then=()))
        return _with(image, effect.add_then)

    patch.setattr(FlowDriver, "_change", changed)
    patch.setattr(FlowDriver, "_change_first", changed_first)


def _with(image: Document | None, then: Sequence[Any]) -> Document | None:
    return image and msgspec.structs.replace(image, then=[*image.then, *then])


def _unkept_inserts(patch: pytest.MonkeyPatch) -> None:
    insert, insert_many = FlowDriver._insert, FlowDriver._insert_many

    async def inserted(self: FlowDriver, effect: flow.Insert) -> bool | None:
        return await insert(self, flow.Insert(_without(effect.document)))

    async def inserted_many(self: FlowDriver, effect: flow.InsertMany) -> int:
        return await insert_many(self, flow.InsertMany([_without(d) for d in effect.documents]))

    patch.setattr(FlowDriver, "_insert", inserted)
    patch.setattr(FlowDriver, "_insert_many", inserted_many)


def _without(document: Document) -> Document:
    return msgspec.structs.replace(document, then=[])


def open_tasks(patch: pytest.MonkeyPatch) -> None:
    """A composite is over when nothing below it is active, whether or not a successor is still to be inserted."""
    find = FlowDriver._find

    async def found(self: FlowDriver, effect: flow.Find[Any]) -> list[Any]:
        where = dict(effect.where)
        if effect.kind is TaskDocument and where.pop("open", False):
            effect = msgspec.structs.replace(effect, where={**where, "active": True})
        return await find(self, effect)

    patch.setattr(FlowDriver, "_find", found)


def second_look(patch: pytest.MonkeyPatch) -> None:
    """Whoever inserts a task does not look again at what it is part of."""

    def wanted(_task: TaskDocument) -> Flow[bool]:
        yield from ()
        return True

    patch.setattr(task_ends, "_still_wanted", wanted)
    patch.setattr(composites, "_not_grown", nothing)
    for module in (job_lifecycle, task_ends):
        patch.setattr(module, "withdraw", nothing)


def unique_slots(patch: pytest.MonkeyPatch) -> None:
    """Two tasks may have the same slot, and the same number in a window."""
    loose = [
        msgspec.structs.replace(index, unique=False) if index.kind is TaskDocument else index
        for index in INDEXES
    ]
    for module in (schema, memory_store):
        patch.setattr(module, "INDEXES", tuple(loose))


def hand_over(patch: pytest.MonkeyPatch) -> None:
    """A task that closes keeps its numbers to itself."""
    patch.setattr(slots, "hand_over", nothing)


def restarts(patch: pytest.MonkeyPatch) -> None:
    """Compare-and-sets don't look at the number of restarts."""

    def rewrite(effect: AnyChange) -> AnyChange:
        return (
            unlooked(effect, "restarts") if effect.kind in (JobDocument, TaskDocument) else effect
        )

    rewrite_changes(patch, rewrite)


def derived_ids(patch: pytest.MonkeyPatch) -> None:
    """What the engine makes gets a new id each time."""
    numbers = itertools.count(1)
    for module in (new_documents, schedule_firings):
        patch.setattr(module, "derived_id", lambda *_: f"{next(numbers):032x}")


class Unheard:
    """A broker whose confirms nobody waits for: what it did not take seems to be sent."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def publish(self, *args: Any, **options: Any) -> None:
        try:
            await self._broker.publish(*args, **options)
        except BrokerUnavailable:
            return


def confirms(patch: pytest.MonkeyPatch) -> None:
    """Tasks are marked SCHEDULED when they are sent, whether or not the broker has them."""
    publish = Outbox.publish_tasks

    async def unheard(self: Outbox, tasks: Sequence[TaskDocument]) -> None:
        if not isinstance(self._broker, Unheard):
            self._broker = Unheard(self._broker)
        await publish(self, tasks)

    patch.setattr(Outbox, "publish_tasks", unheard)


def overdue(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for intents that are overdue."""
    patch.setattr(OverdueIntents, "look", idle)


def told_first(patch: pytest.MonkeyPatch) -> None:
    """A removal does not wait for the job's webhooks."""
    patch.setattr(removal, "TOLD_WITHIN", 0)


def logs_that_grow(patch: pytest.MonkeyPatch) -> None:
    """Old parts of a log go, whether or not its job has ended."""

    async def all_of_them(_: object, job_ids: set[str]) -> list[str]:
        return sorted(job_ids)

    patch.setattr(RetentionTimer, "_ended", all_of_them)


def settled_era(patch: pytest.MonkeyPatch) -> None:
    """What is old goes at once, also just after a clock jumped."""
    patch.setattr(retention, "YOUNG_ERA", 0)


def patient_host(patch: pytest.MonkeyPatch) -> None:
    """A receiver that let a delivery time out gets as many as any other."""
    patch.setattr(webhook_limits, "LIMIT_AFTER_A_TIMEOUT", webhook_limits.LIMIT_OF_A_HOST)


def greedy_user(patch: pytest.MonkeyPatch) -> None:
    """One user's deliveries may take all places."""
    patch.setattr(webhook_limits, "LIMIT_OF_A_USER", webhook_limits.DELIVERIES_AT_ONCE + 1)


def turns_of_evaluations(patch: pytest.MonkeyPatch) -> None:
    """Short evaluations follow one another without a turn of the loop."""

    async def no_wait(_: Evaluations) -> None:
        return None

    patch.setattr(Evaluations, "_room", no_wait)


def unready_jobs(patch: pytest.MonkeyPatch) -> None:
    """A job made from a step on is one like others before what it keeps is there."""
    patch.setattr(job_lifecycle, "unready", lambda job: job)


def unstorable_ends(patch: pytest.MonkeyPatch) -> None:
    """An end that can't be stored is nobody's concern."""
    patch.setattr(task_runs, "Unstorable", Died)


def late_firings(patch: pytest.MonkeyPatch) -> None:
    """A firing that is late counts as missed, whoever was awake."""

    def on_time(self: schedule_firings.Judge, due: int) -> bool:
        return self.now - due <= schedule_firings.GRACE

    patch.setattr(schedule_firings.Judge, "_was_awake", on_time)


def firing_intent(patch: pytest.MonkeyPatch) -> None:
    """The write that makes a firing does not say that its job is still to be made."""
    decided = schedule_firings.decided

    def forgetful(*args: Any, **fields: Any) -> Change[ScheduleDocument]:
        return msgspec.structs.replace(decided(*args, **fields), add_then=())

    patch.setattr(schedule_firings, "decided", forgetful)


def shared_due(patch: pytest.MonkeyPatch) -> None:
    """Whoever sees that something is overdue takes it up, though another just did."""

    def blind(**fields: Any) -> Change[Any]:
        return Change(**{**fields, "overdue_before": None})

    patch.setattr(overdue_intents, "Change", blind)


def tries(patch: pytest.MonkeyPatch) -> None:
    """What can't be done is tried for ever."""
    patch.setattr(given_up, "is_given_up", lambda _: False)


def tried_alone(patch: pytest.MonkeyPatch) -> None:
    """What a process died of is tried like anything else."""
    patch.setattr(overdue_intents, "_died", lambda *_: False)


def room_for_others(patch: pytest.MonkeyPatch) -> None:
    """One job's overdue work may take all places."""
    patch.setattr(overdue_intents, "OF_ONE_JOB", overdue_intents.AT_ONCE)


def places_given_back(patch: pytest.MonkeyPatch) -> None:
    """What waits for its turn keeps its place."""
    patch.setattr(fan_outs, "give_place_back", lambda: None)


def unconfirmed(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for what was never confirmed."""
    patch.setattr(repairs, "unconfirmed", nothing)


def unheard(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for what lies in no queue and in no worker's hands."""
    patch.setattr(repairs, "unheard", nothing)


def overtaken(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether a later task was granted first."""

    def no_grants(_: object) -> Flow[dict[str, repairs.Grant]]:
        yield from ()
        return {}

    patch.setattr(repairs, "latest_grants", no_grants)


def composites_over(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for composites with nothing open below them."""
    patch.setattr(repairs, "composites_with_nothing_open", nothing)


def free_slots(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for free slots with tasks held for them."""
    patch.setattr(repairs, "free_slots", nothing)


def under_ended(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for what is open below a job that has ended."""
    patch.setattr(orphans, "open_under_ended", nothing)


def lower_restarts(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for what is open of a lower number of restarts."""
    patch.setattr(orphans, "of_lower_restarts", nothing)


def lost_subjobs(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for sub-jobs that nobody waits for."""
    patch.setattr(orphans, "lost_subjobs", nothing)


def unwanted(patch: pytest.MonkeyPatch) -> None:
    """What is sent again is not asked whether it is to go on."""

    def all_of(tasks: Sequence[TaskDocument]) -> Flow[tuple[list[TaskDocument], list[Document]]]:
        yield from ()
        return list(tasks), []

    patch.setattr(orphans, "still_wanted", all_of)


def subjob_look(patch: pytest.MonkeyPatch) -> None:
    """Whoever begins a sub-job does not look at what it is part of."""

    def waited_for(_job: JobDocument) -> Flow[None]:
        yield from ()

    patch.setattr(orphans, "lost_subjob", waited_for)


def withdraw_below(patch: pytest.MonkeyPatch) -> None:
    """An intent of a task that is not to go on is dropped, whatever it may have made."""

    def dropped(task: TaskDocument, what: Intent, **_: bool) -> Flow[list[Document]]:
        yield from flow.change_task(task.id, {}, {}, drop=(what.id,))
        return []

    patch.setattr(composites, "give_up_intent", dropped)


def long_withdrawals(patch: pytest.MonkeyPatch) -> None:
    """A cancel ends with its first step."""
    patch.setattr(withdrawal, "again", nothing)


def removal_below(patch: pytest.MonkeyPatch) -> None:
    """A job is removed without the sub-jobs attached to it."""
    patch.setattr(removal, "_remove_subjobs", nothing)


def tombstones(patch: pytest.MonkeyPatch) -> None:
    """Nothing is left of a job that was deleted."""
    patch.setattr(removal, "bury", nothing)


def vars_of_restart(patch: pytest.MonkeyPatch) -> None:
    """Results of earlier restarts count wherever they come from."""
    read = FlowDriver._vars

    async def all_of(self: FlowDriver, effect: flow.Vars) -> Texts:
        return await read(self, msgspec.structs.replace(effect, began=None))

    patch.setattr(FlowDriver, "_vars", all_of)
