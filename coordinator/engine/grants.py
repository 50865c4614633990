"""Grants: the answer to a worker that asks whether it may run a task (engine spec, The run of a task)."""

from __future__ import annotations

from coordinator.engine.flow import (
    DropLogs,
    Flow,
    Lease,
    Started,
    change_task,
    get,
    later,
    now,
    recall,
    send,
    standing,
    task_change,
)
from coordinator.engine.states import TaskFields
from coordinator.engine.task_ends import task_hooks
from coordinator.engine.task_runs import GRANTED, WAITING, counting
from coordinator.engine.withdrawal import withdraw
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    JobDocument,
    Micros,
    NodeDocument,
    TaskDocument,
)
from shared.model.messages import (
    BeatFirst,
    Claim,
    Granted,
    Refused,
)
from shared.model.states import JOB_ENDED, TaskKind, TaskState

LEASE_LEFT: Micros = 15 * MICROS_PER_SECOND
"""A claim is heard only of a node whose lease lasts this long."""


def on_claim(claim: Claim) -> Flow[list[Document]]:
    """Answer a claim: granted, refused, or beat first."""
    node = yield from lease_of(claim.node_id)
    at = yield from now()
    if node is None or node.closed or node.lease_until < at + LEASE_LEFT:
        yield from send(claim.node_id, BeatFirst(task_id=claim.task_id, nonce=claim.nonce))
        return []
    job = yield from _job_of(claim)
    if job is None or job.state in JOB_ENDED:
        return (yield from _not_wanted(claim, job))
    image = yield from _grant(claim, node, job.restarts, claim.run, at)
    if image is None:
        task = yield from get(TaskDocument, claim.task_id)
        if task is not None and task.restarts < job.restarts:
            return (yield from _not_wanted(claim, job))
        image = yield from _second_look(claim, node, task, at)
    if image is None:
        return []
    yield from send(claim.node_id, Granted(task_id=image.id, nonce=claim.nonce, run=image.run))
    yield Started(image.job_id, at)
    return [image] if image.then else []


def lease_of(node_id: str) -> Flow[NodeDocument | None]:
    """Return a node's document, which may be an old image as long as its lease still lasts."""
    node: NodeDocument | None = yield Lease(node_id)
    return node


def _job_of(claim: Claim) -> Flow[JobDocument | None]:
    """Return how the job of a claimed task stands now that the claim has arrived."""
    job_id = claim.job_id
    if not job_id:
        task = yield from get(TaskDocument, claim.task_id)
        job_id = task.job_id if task is not None else ""
    return (yield from standing(job_id)) if job_id else None


def _not_wanted(claim: Claim, job: JobDocument | None) -> Flow[list[Document]]:
    """Refuse a task of a job that has ended, was restarted since, or is gone; withdraw it, should nobody have."""
    reason = "there is no such job"
    if job is not None:
        reason = f"the job is {job.state}" if job.state in JOB_ENDED else "the job was restarted"
    yield from send(claim.node_id, Refused(task_id=claim.task_id, nonce=claim.nonce, reason=reason))
    task = yield from get(TaskDocument, claim.task_id)
    return [] if task is None else (yield from withdraw([task], gone=job is None))


def _grant(
    claim: Claim, node: NodeDocument, restarts: int, run: int, at: Micros
) -> Flow[TaskDocument | None]:
    fields: TaskFields = {
        "node_id": claim.node_id,
        "epoch": node.epoch,
        "nonce": claim.nonce,
        "claim_beat": claim.beat,
        "run": run + 1,
        "lost_by": None,
        "started_at": at,
        "progress": 0.0,
    }
    job = (yield from recall(claim.job_id)) if claim.job_id else None
    hooks = task_hooks(job, TaskState.RUNNING, at)
    where = {"run": run, "kind": TaskKind.CONTAINER, "restarts": restarts}
    image = yield from change_task(claim.task_id, where, fields, move=GRANTED, add=hooks)
    if image is not None and image.scheduled_at is None:
        yield from later(task_change(image.id, {"scheduled_at": None}, {"scheduled_at": at}))
    if image is not None and run:
        yield DropLogs(image.id, image.run)
    return image


def _second_look(
    claim: Claim, node: NodeDocument, task: TaskDocument | None, at: Micros
) -> Flow[TaskDocument | None]:
    """Find out why a claim was not granted at once; grant it after all, answer it again, or refuse it."""
    reason = "there is no such task"
    if task is not None:
        if task.nonce == claim.nonce:
            task = yield from counting(task.id, claim.nonce, node)
            if task is not None:
                return task
        elif task.state in WAITING and task.run != claim.run:
            image = yield from _grant(claim, node, task.restarts, task.run, at)
            if image is not None:
                return image
        reason = _why_refused(task)
    yield from send(claim.node_id, Refused(task_id=claim.task_id, nonce=claim.nonce, reason=reason))
    return None


def _why_refused(task: TaskDocument | None) -> str:
    if task is None:
        return "this run is over"
    return f"the task is {task.state}" if task.state != TaskState.RUNNING else "it runs elsewhere"
