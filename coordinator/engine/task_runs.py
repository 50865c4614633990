"""The run of a task: its grant, end, hand-back and loss (engine spec, The run of a task)."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.engine import transitions
from coordinator.engine.evaluation import kept_error
from coordinator.engine.flow import (
    AppendLog,
    DropLogs,
    Flow,
    Lease,
    Started,
    change_task,
    get,
    later,
    note_event,
    now,
    recall,
    send,
    standing,
    task_change,
)
from coordinator.engine.lost_runs import GIVEN_BACK, LOST_BY_LEASE, back_to_pending, other_runs
from coordinator.engine.new_documents import ENDED_INTENT, intent
from coordinator.engine.task_ends import task_hooks
from coordinator.engine.transitions import MAY_END, WAITING, TaskFields, TaskMove
from coordinator.engine.withdrawal import withdraw
from shared.errors import Unreadable, Unstorable
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    JobDocument,
    LogPartDocument,
    Micros,
    NodeDocument,
    TaskDocument,
    log_part_id,
)
from shared.model.messages import (
    BeatFirst,
    Claim,
    EndStored,
    Granted,
    HandedBack,
    Refused,
    RunEnded,
)
from shared.model.queries import In
from shared.model.states import JOB_ENDED, TaskKind, TaskState

GRANTED = TaskMove(WAITING, TaskState.RUNNING)
RUN_ENDED = {state: TaskMove(MAY_END, state) for state in (TaskState.COMPLETED, TaskState.FAILED)}
LOOKS = 3
"""So often a run is looked at that somebody else changes at the same time."""

COUNTS = In((None, LOST_BY_LEASE))
"""`lost_by` of a run whose end counts."""


# --- the end ------------------------------------------------------------------------------------------------------


def on_run_ended(end: RunEnded) -> Flow[list[Document]]:
    """Apply the end of a run if it is the run that counts; then say that it is stored, or may be forgotten."""
    at = yield from now()
    job = yield from recall(end.job_id)
    state = TaskState.COMPLETED if end.ok else TaskState.FAILED
    error = None if end.ok else end.error or "the task failed"
    fields = transitions.task_end(
        state,
        at,
        result=end.result if end.ok else None,
        error=kept_error(job, error),
        exit_code=end.exit_code,
        usage=end.usage,
        log_parts=end.log_parts,
        lost_by=None,
        node_id=end.node_id,
    )
    if end.ok:
        fields["progress"] = 100.0
    where = {"run": end.run, "nonce": end.nonce, "lost_by": COUNTS}
    add = (intent(ENDED_INTENT, at), *task_hooks(job, state, at))
    try:
        image = yield from change_task(end.task_id, where, fields, move=RUN_ENDED[state], add=add)
    except Unstorable as why:
        said = f"its end can't be stored: {why}"
        if end.error == said:
            raise
        return (yield from on_run_ended(replace(end, ok=False, result=None, error=said)))
    if image is None:
        image = yield from _applied_before(end)
    if image is not None:
        yield from _keep_last_part(end, at)
    yield from send(end.node_id, EndStored(nonces=[end.nonce]))
    return [image] if image is not None and image.then else []


def _applied_before(end: RunEnded) -> Flow[TaskDocument | None]:
    """Return the task if this very end is the one that was applied: what follows from it may not be done yet."""
    task = yield from get(TaskDocument, end.task_id)
    if task is None:
        yield from _of_no_task(end)
    same = (
        task is not None
        and task.run == end.run
        and task.nonce == end.nonce
        and task.state in (TaskState.COMPLETED, TaskState.FAILED)
    )
    if not same:
        yield from note_event("end_refused", end.task_id)
    return task if same else None


def _of_no_task(message: RunEnded | HandedBack) -> Flow[None]:
    """Pass over what a worker of ours says of a task that is gone: its job was deleted. What nobody of ours says can't
    be handled."""
    if (yield from get(NodeDocument, message.node_id)) is None:
        yield from send(message.node_id, EndStored(nonces=[message.nonce]))
        raise Unreadable(f"there is no task {message.task_id}")


def _keep_last_part(end: RunEnded, at: Micros) -> Flow[None]:
    if end.last_part is not None and end.log_parts:
        yield AppendLog(
            [log_part(end.task_id, end.job_id, end.run, end.log_parts, end.last_part, at)]
        )


def log_part(
    task_id: str, job_id: str, run: int, number: int, contents: str, at: Micros
) -> LogPartDocument:
    """Return a part of a log under the id that it always has."""
    return LogPartDocument(
        id=log_part_id(task_id, run, number),
        task_id=task_id,
        job_id=job_id,
        run=run,
        number=number,
        contents=contents,
        created_at=at,
    )


# --- handed back, lost --------------------------------------------------------------------------------------------


def on_handed_back(message: HandedBack) -> Flow[list[Document]]:
    """Take a run back: at no cost, or as lost where its container vanished."""
    task = yield from get(TaskDocument, message.task_id)
    if task is None:
        yield from _of_no_task(message)
    yield from send(message.node_id, EndStored(nonces=[message.nonce]))
    if task is None or task.nonce != message.nonce or task.run != message.run:
        return []
    if task.state not in MAY_END:
        return []
    why = message.reason or "its worker gave it back"
    return (yield from back_to_pending(task, GIVEN_BACK, why, costs=message.vanished))


def may_count(task: TaskDocument, nonce: str) -> bool:
    """Return whether `nonce` may be the run of this task that counts."""
    return task.state in MAY_END and task.nonce == nonce and task.lost_by in COUNTS.values


def counting(task_id: str, nonce: str, node: NodeDocument) -> Flow[TaskDocument | None]:
    """Return the task of which `nonce` is the run that counts, RUNNING, or None: one that was only lost by lease is
    taken back, as its node is there after all.

    Another beat may take it back at the same time, so that a look that sees it granted after all ends there."""
    for _ in range(LOOKS):
        task = yield from get(TaskDocument, task_id)
        if task is None or not may_count(task, nonce):
            return None
        if task.state == TaskState.RUNNING:
            return task
        if (yield from _taken_back(task, node)):
            return task
    return None


def _taken_back(task: TaskDocument, node: NodeDocument) -> Flow[bool]:
    """Take back a run that was lost by lease and is not granted again."""
    fields: TaskFields = {
        "epoch": node.epoch,
        "lost_by": None,
        "lost": max(0, task.lost - 1),
        "runs": other_runs(task),
        "node_id": node.id,
    }
    where = {"run": task.run, "nonce": task.nonce, "lost_by": LOST_BY_LEASE}
    image = yield from change_task(task.id, where, fields, move=GRANTED)
    return image is not None


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
    hooks = task_hooks(job, TaskState.RUNNING, at, run + 1)
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
        elif any(run.nonce == claim.nonce for run in task.runs):
            task = None
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
