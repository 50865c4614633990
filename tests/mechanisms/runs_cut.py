"""Claims, grants, ends, beats and leases: cut one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coordinator.due.sweeper import Sweeper
from coordinator.effects import FlowDriver
from coordinator.engine import beats, flow, leases, pulse, task_runs
from coordinator.engine.flow import Bounds, Flow
from shared.model.documents import Document, JobDocument, Micros, NodeDocument, Pulse, TaskDocument
from shared.model.messages import Beat, Claim, Drain, HandedBack, Message, RunEnded
from shared.model.states import JobState
from tests.mechanisms.cutting import (
    AnyChange,
    answering,
    ends_a_run,
    grants,
    idle,
    nothing,
    read_as,
    rewrite_changes,
    setting,
    unlooked,
)

NEVER: Micros = 1 << 60


def grant(patch: pytest.MonkeyPatch) -> None:
    """Grants are plain writes: they don't compare the task's state and run."""
    rewrite_changes(patch, lambda e: unlooked(e, "state", "run") if grants(e) else e)


def nonce(patch: pytest.MonkeyPatch) -> None:
    """Claims, ends and hand-backs are taken by their task and run, whoever's nonce they carry."""
    rewrite_changes(patch, lambda e: unlooked(e, "nonce"))
    claimed, ended, back = task_runs.on_claim, task_runs.on_run_ended, task_runs.on_handed_back

    def of(message: Claim | RunEnded | HandedBack, flow: Flow[list[Document]]) -> Any:
        return answering(flow, read_as(TaskDocument, {"nonce": message.nonce}))

    patch.setattr(task_runs, "on_claim", lambda message: of(message, claimed(message)))
    patch.setattr(task_runs, "on_run_ended", lambda message: of(message, ended(message)))
    patch.setattr(task_runs, "on_handed_back", lambda message: of(message, back(message)))


def run_number(patch: pytest.MonkeyPatch) -> None:
    """Runs are not numbered: each is number 1."""

    def rewrite(effect: AnyChange) -> AnyChange:
        return setting(unlooked(effect, "run"), run=1) if grants(effect) else effect

    rewrite_changes(patch, rewrite)


def grant_look(patch: pytest.MonkeyPatch) -> None:
    """A claim is granted without a look at how its job stands."""

    def goes_on(job_id: str) -> Flow[JobDocument]:
        yield from ()
        return JobDocument(id=job_id, name="", state=JobState.RUNNING)

    patch.setattr(task_runs, "standing", goes_on)
    rewrite_changes(patch, lambda e: unlooked(e, "restarts") if grants(e) else e)


def closed_for_good(patch: pytest.MonkeyPatch) -> None:
    """A node whose process was succeeded is closed as one whose lease ran out."""
    rewrite_changes(
        patch, lambda e: setting(e, succeeded_by=None) if "succeeded_by" in e.set else e
    )


def beat_first(patch: pytest.MonkeyPatch) -> None:
    """Claims are granted however short the node's lease is."""
    patch.setattr(task_runs, "LEASE_LEFT", -NEVER)


def end_once(patch: pytest.MonkeyPatch) -> None:
    """Ends are plain writes: they don't compare the task's state, nor whether its run still counts."""
    rewrite_changes(patch, lambda e: unlooked(e, "state", "lost_by") if ends_a_run(e) else e)


def taking_back(patch: pytest.MonkeyPatch) -> None:
    """A run lost by lease stays lost, though its node is heard of again."""

    def not_taken(_task: TaskDocument, _node: NodeDocument) -> Flow[bool]:
        yield from ()
        return False

    patch.setattr(task_runs, "_taken_back", not_taken)


def redeliveries(patch: pytest.MonkeyPatch) -> None:
    """A run may be lost without end."""
    bounds = FlowDriver._bounds

    async def endless(self: FlowDriver, effect: Any) -> Bounds:
        return msgspec.structs.replace(await bounds(self, effect), redeliveries=NEVER)

    patch.setattr(FlowDriver, "_bounds", endless)


def reconciliation(patch: pytest.MonkeyPatch) -> None:
    """Beats renew the lease; what they list is not compared with what the store grants."""
    patch.setattr(beats, "reconciled", nothing)


def beat_numbers(patch: pytest.MonkeyPatch) -> None:
    """A beat counts however late it comes."""

    def rewrite(effect: AnyChange) -> AnyChange:
        return unlooked(effect, "beat") if effect.kind is NodeDocument else effect

    rewrite_changes(patch, rewrite)


def lease(patch: pytest.MonkeyPatch) -> None:
    """Beats give a lease that never runs out."""
    fields = beats._node_fields

    def endless(beat: Beat, at: Micros, _lease_until: Micros) -> dict[str, Any]:
        return fields(beat, at, at + NEVER)

    patch.setattr(beats, "_node_fields", endless)


def epochs(patch: pytest.MonkeyPatch) -> None:
    """A node's lease has no epochs: the one that a late beat opens is the one that was closed."""

    def rewrite(effect: AnyChange) -> AnyChange:
        return setting(effect, epoch=1) if effect.set.get("epoch") else effect

    rewrite_changes(patch, rewrite)


def _with_pulse(patch: pytest.MonkeyPatch, **fields: Any) -> None:
    expire = leases.expire_leases
    patch.setattr(leases, "expire_leases", lambda: answering(expire(), read_as(Pulse, fields)))


def the_pulse(patch: pytest.MonkeyPatch) -> None:
    """A lease runs out by the clock alone, wherever the pulse is."""
    _with_pulse(patch, stamps=dict.fromkeys(pulse.QUEUES, NEVER))


def era(patch: pytest.MonkeyPatch) -> None:
    """A lease runs out however young the era is."""
    _with_pulse(patch, era_at=0)


def closers(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for runs of closed epochs that are still RUNNING."""
    patch.setattr(leases, "runs_of_closed_epochs", nothing)


def drain_told_once(patch: pytest.MonkeyPatch) -> None:
    """A worker is told to drain once, and not again should that be lost."""
    send = flow.send

    def but_drains(node_id: str | None, message: Message) -> Flow[None]:
        if not isinstance(message, Drain):
            yield from send(node_id, message)

    patch.setattr(beats, "send", but_drains)


def seldom_asked(patch: pytest.MonkeyPatch) -> None:
    """An end that was not heard of is asked for at every beat."""
    patch.setattr(beats, "_is_missed", lambda _: True)


def sweeper(patch: pytest.MonkeyPatch) -> None:
    """Nothing is swept."""
    patch.setattr(Sweeper, "sweep", idle)
