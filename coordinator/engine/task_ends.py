"""What follows from the end of a task: the next attempt, the next task, the end of its parent or of its job."""

from __future__ import annotations

from functools import partial

from coordinator.engine import composites, evaluation, new_documents, retries, slots, task_start
from coordinator.engine.flow import (
    Flow,
    bounds,
    change_job,
    change_task,
    evaluate,
    get,
    insert,
    later,
    now,
    read_vars,
    recall,
    task_change,
)
from coordinator.engine.job_ends import UNDER_WAY, end_job, end_job_by, goes_on, is_over
from coordinator.engine.new_documents import BEGIN, ENDED_INTENT
from coordinator.engine.transitions import JobFields, JobMove
from coordinator.engine.webhook_triggers import (
    JOB_PROGRESS,
    JOB_STATE,
    TASK_STATE,
    progress_hook,
    state_hook,
)
from coordinator.engine.withdrawal import withdraw
from shared.durations import duration_seconds
from shared.errors import Unstorable
from shared.expressions import ExpressionError
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    Intent,
    JobDocument,
    Micros,
    TaskDocument,
    TaskReference,
)
from shared.model.quantities import past_limit
from shared.model.queries import In
from shared.model.states import GOOD, Hold, JobState, TaskState

BEGUN = JobMove((JobState.PENDING,), JobState.SCHEDULED)
RUNS = JobMove((JobState.SCHEDULED,), JobState.RUNNING)


def task_ended(task: Document, _: Intent) -> Flow[list[Document]]:
    """Follow the intent of a task that has ended."""
    assert isinstance(task, TaskDocument)
    job = yield from recall(task.job_id)
    if job is None:
        return (yield from withdraw([task], gone=True))
    if task.state == TaskState.FAILED and (yield from _tried_again(task)):
        return []
    if task.parent_id is not None:
        return (yield from _child_ended(job, task))
    if job.state == JobState.PENDING:
        yield from _begun(job, task)
    follow = yield from _step_ended(job, task)
    if task.window_of:
        follow += yield from slots.hand_over(task)
    yield from later(task_change(task.id, {}, {"open": False}, drop=(ENDED_INTENT,)))
    return follow


def _tried_again(task: TaskDocument) -> Flow[bool]:
    """Insert the next attempt of a failed task, if it has one; then look again at what it is part of."""
    at = yield from now()
    attempt = retries.next_attempt(task, at)
    if attempt is None:
        return False
    wanted = yield from _still_wanted(task)
    if wanted:
        if (yield from insert(attempt)) is None:
            yield from insert(task_start.without_numbers(attempt))
        wanted = yield from _still_wanted(task)
    if wanted:
        yield from change_task(task.id, {}, {"open": False}, drop=(ENDED_INTENT,))
    else:
        yield from withdraw([attempt])
    return wanted


def _still_wanted(task: TaskDocument) -> Flow[bool]:
    """Return whether the job (and parent) of a task go on, with the same number of restarts."""
    job = yield from get(JobDocument, task.job_id)
    if not goes_on(job, task.restarts):
        return False
    if task.parent_id is None:
        return True
    parent = yield from get(TaskDocument, task.parent_id)
    return parent is not None and parent.active


# --- children -----------------------------------------------------------------------------------------------------


def _child_ended(job: JobDocument, task: TaskDocument) -> Flow[list[Document]]:
    """Fail the parent where the child failed for good; close the child, hand its numbers on, ask the parent."""
    assert task.parent_id is not None
    follow: list[Document] = []
    if task.state in (TaskState.FAILED, TaskState.CANCELLED):
        parent = yield from get(TaskDocument, task.parent_id)
        if parent is not None:
            follow += yield from composites.end_composite(
                parent, task.state, task.error, failed_task=failed_within(task)
            )
    yield from change_task(task.id, {}, {"open": False})
    follow += yield from slots.hand_over(task)
    follow += yield from composites.complete_if_done(task.parent_id, job)
    yield from later(task_change(task.id, {}, {}, drop=(ENDED_INTENT,)))
    return follow


# --- top-level tasks ----------------------------------------------------------------------------------------------


def _begun(job: JobDocument, task: TaskDocument) -> Flow[None]:
    """Move a job to its first task, which has ended at once: whoever began the job may be stuck before it said so."""
    where, fields = {"restarts": task.restarts}, JobFields(position=task.position)
    yield from change_job(job.id, where, fields, move=BEGUN, drop=(BEGIN,))


def _step_ended(job: JobDocument, task: TaskDocument) -> Flow[list[Document]]:
    """Go on to the next top-level task, or end the job; neither where that has ended, or was restarted since."""
    if is_over(job, task.restarts):
        return []
    if task.state in GOOD:
        if task.position < len(job.definition.tasks):
            return (yield from _advance(job, task))
        return (yield from _complete(job, task))
    return (yield from _end_at(job, task, JobState(task.state), task.error))


def _advance(job: JobDocument, task: TaskDocument) -> Flow[list[Document]]:
    """Insert the next task, move the job's position (which is the second look), send the task."""
    at = yield from now()
    following = new_documents.top_level_task(job, task.position + 1, task.restarts, at)
    if following.window_of and task.window is not None and task.window_of == following.window_of:
        following.window = task.window
    placed = yield from task_start.place(job, following, at)
    image = yield from move_position(job, task.restarts, task.position, at)
    follow: list[Document] = []
    if image is None and (behind := (yield from _catch_up(job, task))) is not None:
        follow += behind
        image = yield from move_position(job, task.restarts, task.position, at)
    if image is None:
        present = yield from get(JobDocument, job.id)
        if not goes_on(present, task.restarts):
            return (yield from withdraw([placed], gone=present is None))
        if present is not None and present.position > placed.position:
            return []
    follow += [image] if image is not None and image.then else []
    return [*follow, *(yield from released(placed))]


def released(task: TaskDocument) -> Flow[list[Document]]:
    """Go on with a top-level task that was placed: send it, follow it, or offer it a number of its window."""
    if task.hold == Hold.WINDOW and task.window_of:
        return (yield from slots.offer_window(task.window_of, (yield from bounds()).job_window))
    return (yield from task_start.go_on([task]))


def move_position(
    job: JobDocument, restarts: int, done: int, at: Micros
) -> Flow[JobDocument | None]:
    """Move a job's position on from `done`; None where the job has ended, was restarted, or is elsewhere."""
    where = {"state": In(UNDER_WAY), "restarts": restarts, "position": done}
    progress = new_documents.progress_of(done, job.task_count)
    fields: JobFields = {"position": done + 1, "progress": progress}
    add = progress_hook(job, JOB_PROGRESS, at)
    return (yield from change_job(job.id, where, fields, add=add))


def _catch_up(job: JobDocument, task: TaskDocument) -> Flow[list[Document] | None]:
    """Move the position of a job that is behind a task of its own that has ended; None where it is not (any more).

    Whoever inserted that task may have died before the position was moved, and the task may have been found, published
    and ended before the end of the one ahead of it is followed again. A task stands only behind those that are done."""
    present = yield from get(JobDocument, job.id)
    if present is None or not goes_on(present, task.restarts) or present.position > task.position:
        return None
    follow: list[Document] = []
    for position in range(max(1, present.position), task.position):
        at = yield from now()
        image = yield from move_position(job, task.restarts, position, at)
        follow += [image] if image is not None and image.then else []
    return follow


def _complete(job: JobDocument, task: TaskDocument) -> Flow[list[Document]]:
    """Complete a job whose last task is done; its `output` is evaluated now."""
    at = yield from now()
    try:
        result = yield from _output(job, task, at)
    except ExpressionError as error:
        return (yield from _end_at(job, task, JobState.FAILED, f"output: {error}"))
    fields: JobFields = {
        "position": task.position + 1,
        "progress": 100.0,
        "result": result,
    }
    if job.definition.auto_delete is not None:
        fields["delete_at"] = at + int(
            duration_seconds(job.definition.auto_delete.after) * MICROS_PER_SECOND
        )
    sources = UNDER_WAY if task.started_at is None else (JobState.RUNNING,)
    move, where = JobMove(sources, JobState.COMPLETED), {"position": task.position}
    ended = yield from end_job_by(job, task.restarts, move, None, where, **fields)
    if not ended and (follow := (yield from _catch_up(job, task))) is not None:
        follow += yield from _ran(job, task, at)
        again = yield from end_job_by(job, task.restarts, move, None, where, **fields)
        return [*follow, *again]
    return ended


def _ran(job: JobDocument, task: TaskDocument, at: Micros) -> Flow[list[Document]]:
    """Say that a job runs whose last task has run, where whoever granted that died before it could."""
    if task.started_at is None:
        return []
    where, fields = {"restarts": task.restarts}, JobFields(started_at=task.started_at)
    add = state_hook(job, JOB_STATE, JobState.RUNNING, at)
    image = yield from change_job(job.id, where, fields, move=RUNS, add=add)
    return [image] if image is not None and image.then else []


def _output(job: JobDocument, task: TaskDocument, at: Micros) -> Flow[str | None]:
    template = job.definition.output
    if not template:
        return None
    named = partial(evaluation.wanted_vars, [template], ())
    wanted = yield from evaluate(named, job.id, job.created_by.id)
    results = yield from read_vars(job, wanted, task.restarts)
    scope = evaluation.scope_for(job, {}, results)
    work = partial(evaluation.rendered, template, scope, at, task.seed)
    result = yield from evaluate(work, job.id, job.created_by.id)
    most = (yield from bounds()).output_bytes
    if len(result.encode()) > most:
        raise ExpressionError(past_limit(most), kind="limit")
    return result


def _end_at(
    job: JobDocument, task: TaskDocument, state: JobState, error: str | None
) -> Flow[list[Document]]:
    """End a job where this task is: a restart goes on from there."""
    follow = yield from _catch_up(job, task)
    culprit = failed_within(task)
    ended = yield from end_job(job, task.restarts, state, error, failed_task=culprit)
    return [*(follow or []), *ended]


def failed_within(task: TaskDocument) -> TaskReference | None:
    """Return the task that made this one fail: itself, or the innermost inside it; None where it did not fail."""
    if task.state != TaskState.FAILED:
        return None
    return task.failed_task or TaskReference(task.id, task.name)


# --- the end of a job goes up to its parent task ------------------------------------------------------------------


def tell_parent(job: JobDocument) -> Flow[list[Document]]:
    """End the task that waits for this sub-job, as the sub-job ended."""
    if job.parent_id is None:
        return []
    parent = yield from get(TaskDocument, job.parent_id)
    if (
        parent is None
        or parent.state != TaskState.RUNNING
        or parent.subjob_id not in (None, job.id)
    ):
        return []
    error = job.error
    if job.state == JobState.FAILED:
        error = job.error or f"sub-job {job.id} failed"
    end = partial(composites.end_composite, parent)
    if job.state != JobState.COMPLETED or job.result is None:
        return (yield from end(TaskState(job.state), error, subjob_id=job.id))
    try:
        return (yield from end(TaskState.COMPLETED, None, result=job.result, subjob_id=job.id))
    except Unstorable as why:
        said = f"the result of sub-job {job.id} can't be stored: {why}"
        return (yield from end(TaskState.FAILED, said, subjob_id=job.id))


def task_hooks(
    job: JobDocument | None, state: TaskState, at: Micros, run: int = 0
) -> tuple[Intent, ...]:
    """Return the intents of webhooks that a task's change to `state` must hold. `run`: of one that has not ended."""
    return state_hook(job, TASK_STATE, state, at, run)
