"""Heartbeats: renew a node's lease, and compare what the node holds with what the store grants it.

A lost answer, a lost end, a run that nobody has any more: all are found here (engine spec, Beats).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from coordinator.engine import lost_runs, task_runs
from coordinator.engine.flow import (
    Flow,
    Started,
    bounds,
    change,
    change_task,
    find,
    get,
    insert,
    insert_many,
    later,
    now,
    send,
    task_change,
)
from coordinator.engine.transitions import TaskFields
from shared.model.documents import (
    Document,
    JobDocument,
    Micros,
    NodeDocument,
    QueueDocument,
    TaskDocument,
)
from shared.model.messages import (
    Beat,
    Drain,
    EndStored,
    Granted,
    Held,
    NodeStored,
    SendEnd,
    Stop,
    Succeeded,
)
from shared.model.queries import Below, In
from shared.model.queues import node_queue
from shared.model.states import JobState, NodeKind, RunRole, TaskState

MISSING_BEATS = 2
"""A granted nonce that is missing from a beat numbered so many above its claim's is lost."""

UNLISTED = "its worker no longer knows of it"
UNHEARD_OF = "its worker was not heard of for as long as its lease"
STARTED_AGAIN = "its worker was killed, and started again"
"""Why a run was lost, as its user reads it."""

_ASKED_SOON = (1, 2, 4)
_ASKED_EVERY = 8
"""Beats after which an end that was not heard of is asked for."""


def on_beat(beat: Beat) -> Flow[list[Document]]:
    """Handle a beat. One that a later beat has overtaken is dropped whole."""
    node = yield from _renewed(beat)
    if node is None or beat.node_kind != NodeKind.WORKER:
        return []
    follow: list[Document] = []
    for predecessor in beat.predecessors:
        follow += yield from _succeed(node, predecessor, beat)
    if beat.predecessors:
        yield from send(node.id, Succeeded(nodes=beat.predecessors))
    if node.drain_asked is not None and node.drain_asked != beat.draining:
        yield from send(node.id, Drain(on=node.drain_asked))  # it has not heard of that
    return follow + (yield from reconciled(node, beat))


def _renewed(beat: Beat) -> Flow[NodeDocument | None]:
    """Renew the node's lease; a beat after the epoch was closed opens the next."""
    at = yield from now()
    lease_until = at + (yield from bounds()).lease
    fields = _node_fields(beat, at, lease_until)
    image = yield from change(
        NodeDocument, beat.node_id, {"beat": Below(beat.number), "closed": False}, fields
    )
    if image is not None:
        return image
    node = yield from get(NodeDocument, beat.node_id)
    if node is None:
        fresh = NodeDocument(id=beat.node_id, **fields)
        return (yield from _told_so(fresh)) if (yield from insert(fresh)) else None
    if node.beat >= beat.number or not node.closed or node.succeeded_by is not None:
        return None
    fields |= {"closed": False, "left_nothing": False, "epoch": node.epoch + 1}
    where = {"beat": Below(beat.number), "closed": True, "epoch": node.epoch}
    image = yield from change(NodeDocument, beat.node_id, where, fields)
    return (yield from _told_so(image)) if image is not None else None


def _told_so(node: NodeDocument) -> Flow[NodeDocument]:
    """Tell a worker whose epoch was opened: now that its node is stored, it may make what outlives it."""
    if node.kind == NodeKind.WORKER:
        yield from insert_many(
            [QueueDocument(id=queue, used_at=node.last_heartbeat_at) for queue in node.queues]
        )
        yield from send(node.id, NodeStored())
    return node


def _succeed(node: NodeDocument, predecessor: str, beat: Beat) -> Flow[list[Document]]:
    """Close a node for good whose process is dead, as its successor says: the ends that this one lists are its own
    now, and whatever else that node was granted is lost."""
    ended = {held.nonce for held in beat.held if held.role == RunRole.ENDED}
    where = {"node_id": predecessor, "state": TaskState.RUNNING}
    for task in (yield from find(TaskDocument, where, without=TaskDocument.heavy)):
        if task.nonce in ended:
            here = {"nonce": task.nonce, "run": task.run, "state": TaskState.RUNNING}
            fields: TaskFields = {"node_id": node.id, "epoch": node.epoch}
            yield from change_task(task.id, here, fields)
    closed = {"closed": True, "left_nothing": False, "succeeded_by": node.id}
    image = yield from change(NodeDocument, predecessor, {}, closed)
    if image is None:  # a beat of it may still come, and must not open it
        about = {**_node_fields(beat, node.last_heartbeat_at, 0), "beat": 0}
        image = NodeDocument(id=predecessor, **about, closed=True, succeeded_by=node.id)
        yield from insert(image)
    return (yield from lose_runs(image, STARTED_AGAIN))


def _node_fields(beat: Beat, at: Micros, lease_until: Micros) -> dict[str, Any]:
    return {
        "beat": beat.number,
        "kind": beat.node_kind,
        "name": beat.name,
        "hostname": beat.hostname,
        "version": beat.version,
        "started_at": beat.started_at or at,
        "last_heartbeat_at": at,
        "cpu_percent": beat.cpu_percent,
        "task_count": sum(held.role == RunRole.RUNNING for held in beat.held),
        "queue": node_queue(beat.node_id) if beat.node_kind == NodeKind.WORKER else None,
        "queues": beat.queues,
        "port": beat.port,
        "status": beat.status,
        "draining": beat.draining,
        "lease_until": lease_until,
        "holding": beat.held_deliveries,
    }


# --- reconciliation -----------------------------------------------------------------------------------------------


def reconciled(node: NodeDocument, beat: Beat) -> Flow[list[Document]]:
    """Compare what a worker lists with what the store grants it; put right what differs."""
    where = {"node_id": node.id, "state": TaskState.RUNNING}
    granted = {
        task.nonce: task
        for task in (yield from find(TaskDocument, where, without=TaskDocument.heavy))
    }
    listed = {held.nonce for held in beat.held}
    follow: list[Document] = []
    for nonce, task in granted.items():
        if nonce not in listed and task.claim_beat + MISSING_BEATS <= beat.number:
            follow += yield from _missing(task)
    going_on = {nonce: task for nonce, task in granted.items() if nonce in listed}
    yield from _begun(going_on.values())
    for held in beat.held:
        if held.nonce in going_on:
            yield from _as_granted(node, held, going_on[held.nonce], beat)
    others = [
        held for held in beat.held if held.nonce not in granted and held.role != RunRole.ASKED
    ]
    yield from _not_granted(node, others)
    return follow


def _missing(task: TaskDocument) -> Flow[list[Document]]:
    whole = yield from get(TaskDocument, task.id)
    if whole is None or whole.nonce != task.nonce:
        return []
    return (yield from lost_runs.back_to_pending(whole, lost_runs.GIVEN_BACK, UNLISTED, costs=True))


def _begun(tasks: Collection[TaskDocument]) -> Flow[None]:
    """See to it that the jobs of these runs are RUNNING, should whoever granted one have died before that."""
    if not tasks:
        return
    started = {task.job_id: task.started_at or 0 for task in tasks}
    waiting = {"id": In(tuple(started)), "state": In((JobState.PENDING, JobState.SCHEDULED))}
    for job in (yield from find(JobDocument, waiting, without=JobDocument.heavy)):
        yield Started(job.id, started[job.id])


def _as_granted(node: NodeDocument, held: Held, task: TaskDocument, beat: Beat) -> Flow[None]:
    """Repeat an answer that the worker missed of a run that the store grants it; ask for an end that went missing."""
    if task.epoch != node.epoch:
        where = {"nonce": task.nonce, "run": task.run, "state": TaskState.RUNNING}
        yield from later(task_change(task.id, where, {"epoch": node.epoch}))
    if held.role == RunRole.ASKED:
        yield from send(node.id, Granted(task_id=task.id, nonce=held.nonce, run=task.run))
    elif held.role == RunRole.ENDED and _is_missed(beat.number - held.ended_beat):
        yield from send(node.id, SendEnd(nonces=[held.nonce]))


def _is_missed(beats: int) -> bool:
    """Return whether an end that has been listed for so many beats is asked for: soon, then ever more seldom, since it
    may wait in a queue that is long already."""
    return beats in _ASKED_SOON or (beats > 0 and beats % _ASKED_EVERY == 0)


def _not_granted(node: NodeDocument, listed: Sequence[Held]) -> Flow[None]:
    """Take a run back that the store does not grant, where only its lease was lost, or stop it.

    One question tells for most that nothing is to be taken back: a busy worker lists many ends that it was not told
    stored yet, and a beat must not take long."""
    if not listed:
        return
    ids = In(tuple({held.task_id for held in listed}))
    found = yield from find(TaskDocument, {"id": ids}, without=TaskDocument.heavy)
    tasks = {task.id: task for task in found}
    for held in listed:
        task = tasks.get(held.task_id)
        if task is not None and task_runs.may_count(task, held.nonce):
            task = yield from task_runs.counting(held.task_id, held.nonce, node)
        else:
            task = None
        yield from _answer(node, held, counts=task is not None)


def _answer(node: NodeDocument, held: Held, *, counts: bool) -> Flow[None]:
    """Tell a worker what becomes of a run that the store did not grant when its beat was compared."""
    if held.role == RunRole.ENDED:
        kind = SendEnd if counts else EndStored
        yield from send(node.id, kind(nonces=[held.nonce]))
    elif not counts:
        yield from send(node.id, Stop(nonces=[held.nonce]))


# --- leases that ran out ------------------------------------------------------------------------------------------


def close_epoch(node: NodeDocument) -> Flow[list[Document]]:
    """Close the epoch of a node whose lease has run out; its runs are lost, unless a beat takes them back in time."""
    where = {"closed": False, "lease_until": node.lease_until, "epoch": node.epoch}
    image = yield from change(NodeDocument, node.id, where, {"closed": True})
    return [] if image is None else (yield from lose_runs(image))


def lose_runs(node: NodeDocument, why: str = UNHEARD_OF) -> Flow[list[Document]]:
    """Make the runs of a closed epoch (or an earlier one) PENDING again."""
    follow: list[Document] = []
    where = {"node_id": node.id, "state": TaskState.RUNNING, "epoch": Below(node.epoch + 1)}
    for task in (yield from find(TaskDocument, where)):
        follow += yield from lost_runs.back_to_pending(
            task, lost_runs.LOST_BY_LEASE, why, costs=True
        )
    return follow
