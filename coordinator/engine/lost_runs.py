"""Runs that came to nothing: the task runs again, or fails where that happened too often (engine spec, The run of a
task)."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.engine import transitions
from coordinator.engine.evaluation import kept_error
from coordinator.engine.flow import (
    Flow,
    bounds,
    change_task,
    note_event,
    now,
    publish,
    recall,
)
from coordinator.engine.new_documents import ENDED_INTENT, intent
from coordinator.engine.task_ends import task_hooks
from coordinator.engine.transitions import MAY_END, TaskFields, TaskMove
from shared.model.documents import Document, LostRunEntry, Micros, TaskDocument
from shared.model.queries import Where
from shared.model.states import TaskState

LOST = TaskMove((TaskState.RUNNING,), TaskState.PENDING)
HANDED_BACK = TaskMove((TaskState.RUNNING, TaskState.SCHEDULED), TaskState.PENDING, stays=True)
"""A run that is handed back may have been lost by lease before, so that its task waits already."""

RUNS_KEPT = 10
"""Runs that came to nothing which a task remembers."""

LONGEST_REASON = 1_000
"""Characters."""

LOST_TOO_OFTEN = "task redelivered too many times"
"""How the error of a task that was lost too often begins."""

LOST_BY_LEASE = "lease"
GIVEN_BACK = "given back"
"""`lost_by` of a run that is over for good; its nonce stays, so as not to be granted again."""


def back_to_pending(
    task: TaskDocument, lost_by: str, why: str, *, costs: bool
) -> Flow[list[Document]]:
    """Make a run that is over without an end PENDING again, or FAILED where that happened too often; publish it. `why`
    is kept with the task, in words.

    Where its lease ran out (`LOST_BY_LEASE`) the run may still be taken back, and its end counts, until the next grant;
    otherwise (`GIVEN_BACK`) it is over for good. One run costs at most one loss."""
    if task.lost_by == GIVEN_BACK:
        return []
    at = yield from now()
    lost = task.lost + (1 if costs and task.lost_by is None else 0)
    where = {
        "run": task.run,
        "nonce": task.nonce,
        "epoch": task.epoch,
        "lost_by": task.lost_by,
    }
    runs = _with_lost_run(task, why, at)
    if lost > (yield from bounds()).redeliveries:
        return (yield from _given_up(task, where, lost_by, lost, runs))
    fields: TaskFields = {
        "lost": lost,
        "runs": runs,
        "published_at": at,
        "lost_by": lost_by,
    }
    move = LOST
    if lost_by == GIVEN_BACK:
        fields |= {"node_id": None, "epoch": None}
        move = HANDED_BACK
    image = yield from change_task(task.id, where, fields, move=move)
    if image is not None:
        yield from note_event("run_lost" if costs else "run_handed_back", task.id)
        yield from publish([image])
    return []


def _with_lost_run(task: TaskDocument, why: str, at: Micros) -> list[LostRunEntry]:
    """Return the history of a task's runs with the present one, which came to nothing."""
    lost = LostRunEntry(
        number=task.run,
        node_id=task.node_id or "",
        started_at=task.started_at or 0,
        ended_at=at,
        why=why[:LONGEST_REASON],
        nonce=task.nonce or "",
    )
    return [*other_runs(task), lost][-RUNS_KEPT:]


def other_runs(task: TaskDocument) -> list[LostRunEntry]:
    """Return the runs before the present one that came to nothing."""
    return [each for each in task.runs if each.number != task.run]


def _reasons(runs: Sequence[LostRunEntry]) -> str:
    """Return why runs were lost, each reason once."""
    return "; ".join(dict.fromkeys(each.why for each in runs if each.why))


def _given_up(
    task: TaskDocument, where: Where, lost_by: str, lost: int, runs: list[LostRunEntry]
) -> Flow[list[Document]]:
    at = yield from now()
    job = yield from recall(task.job_id)
    error = kept_error(job, f"{LOST_TOO_OFTEN}: {_reasons(runs)}")
    fields = transitions.task_end(TaskState.FAILED, at, error=error, lost=lost, runs=runs)
    add = (intent(ENDED_INTENT, at), *task_hooks(job, TaskState.FAILED, at))
    sources = MAY_END if lost_by == GIVEN_BACK else (TaskState.RUNNING,)
    move = TaskMove(sources, TaskState.FAILED)
    image = yield from change_task(task.id, where, fields, move=move, add=add)
    return [image] if image else []
