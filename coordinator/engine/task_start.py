"""Starts a task: evaluates its templates, inserts it (or ends its hold), and sends it to its queue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import msgspec

from coordinator.engine import evaluation
from coordinator.engine.flow import (
    Flow,
    change_task,
    evaluate,
    get,
    insert,
    insert_many,
    now,
    publish,
    read_vars,
    recall,
)
from coordinator.engine.transitions import TaskFields, TaskMove
from coordinator.engine.webhook_triggers import TASK_STATE, state_hook
from coordinator.engine.withdrawal import withdraw
from shared.expressions import ExpressionError
from shared.model.documents import Document, Intent, JobDocument, Micros, TaskDocument
from shared.model.states import Hold, TaskState

HEAVIEST = 8 * 1024 * 1024
"""Bytes, encoded, of tasks after which no more are inserted and sent together."""


def with_turn(job: JobDocument, task: TaskDocument, at: Micros) -> Flow[TaskDocument]:
    """Return `task`, whose turn has come, evaluated: PENDING, SKIPPED, FAILED, or RUNNING for a composite."""
    scope = yield from scope_of(job, task)
    work = partial(evaluation.with_evaluation, task, scope, at)
    before = task
    try:
        task = yield from evaluate(work, task.id, job.created_by.id)
        if problem := evaluation.told_secret(job, task):
            before = msgspec.structs.replace(before, name=task.name)
            task = evaluation.with_end(before, TaskState.FAILED, at, problem)
    except ExpressionError as error:
        task = evaluation.with_end(task, TaskState.FAILED, at, evaluation.said(error))
    if "{{" in task.definition.name:
        task.name = evaluation.kept_name(job, task.name)
    if task.error:
        task.error = evaluation.kept_error(job, f"task {task.name!r}: {task.error}")
    hooks = state_hook(job, TASK_STATE, task.state, at)
    return msgspec.structs.replace(task, published_at=at, then=[*task.then, *hooks])


def scope_of(job: JobDocument, task: TaskDocument) -> Flow[dict[str, object]]:
    """Return the names in scope in a task, with the results that its templates may read."""
    named = partial(evaluation.vars_of, task.definition)
    wanted = yield from evaluate(named, task.id, job.created_by.id)
    results = yield from read_vars(job, wanted, task.restarts)
    return evaluation.scope_for(job, task.scope, results)


def place(job: JobDocument, task: TaskDocument, at: Micros) -> Flow[TaskDocument]:
    """Insert a task whose turn has come; return it as it is stored, also where it was there already.

    A task that counts against a window and has no number in it is inserted held; so is one whose number is taken."""
    if task.window_of and task.window is None:
        placed = msgspec.structs.replace(task, hold=Hold.WINDOW)
    else:
        placed = yield from with_turn(job, task, at)
    new = yield from insert(placed)
    if new is None:
        placed = msgspec.structs.replace(task, window=None, hold=Hold.WINDOW)
        new = yield from insert(placed)
    if new:
        return placed
    return (yield from get(TaskDocument, task.id)) or placed


def without_numbers(task: TaskDocument) -> TaskDocument:
    """Return a task that waits for numbers anew, a delayed one after its delay: those it was to have are somebody
    else's."""
    hold = task.hold
    if hold != Hold.DELAY:
        hold = Hold.CONCURRENCY if task.slot_of else Hold.WINDOW
    return msgspec.structs.replace(task, slot=None, window=None, hold=hold)


def number_wanted(task: TaskDocument) -> Hold | None:
    """Return which hold a task is to wait in for a number that it needs and has not; None for one that has all."""
    if task.slot_of and task.slot is None:
        return Hold.CONCURRENCY
    return Hold.WINDOW if task.window_of and task.window is None else None


def place_many(
    job: JobDocument, tasks: Sequence[TaskDocument], at: Micros
) -> Flow[tuple[int, list[TaskDocument]]]:
    """Insert many at once, those without a hold with their turn come: the first of `tasks`, no more than may be in
    memory together. Return how many, and those of them that need to be gone on with.

    Those that were there already are left as they are: whoever inserted them left their intents."""
    ready: list[TaskDocument] = []
    weight = 0
    for task in (yield from _with_names(job, tasks, at)):
        turned = task if task.hold else (yield from with_turn(job, task, at))
        ready.append(turned)
        weight += _weight(turned)
        if weight > HEAVIEST:
            break
    count = len(ready)
    if (yield from insert_many(ready)) < count:
        ready = yield from _as_stored(tasks[:count])
    return count, [task for task in ready if (task.hold is None and task.active) or task.then]


def _weight(task: TaskDocument) -> int:
    return len(msgspec.msgpack.encode((task.definition, task.evaluated, task.scope)))


def _with_names(
    job: JobDocument, tasks: Sequence[TaskDocument], at: Micros
) -> Flow[list[TaskDocument]]:
    """Return `tasks`, those that are held with their names evaluated: their turn may never come."""
    held = [task for task in tasks if task.hold and "{{" in task.name]
    if not held:
        return list(tasks)
    work = partial(evaluation.waiting_names, job, held, at)
    try:
        names = yield from evaluate(work, held[0].id, job.created_by.id)
    except ExpressionError:
        return list(tasks)
    return [
        msgspec.structs.replace(task, name=names.get(task.id, task.name)) if task.hold else task
        for task in tasks
    ]


def _as_stored(tasks: Sequence[TaskDocument]) -> Flow[list[TaskDocument]]:
    """Return what the store has of `tasks`, inserting held those that it refused because their number was taken."""
    stored = []
    for task in tasks:
        found = yield from get(TaskDocument, task.id)
        if found is None:
            found = without_numbers(task)
            yield from insert(found)
        stored.append(found)
    return stored


def go_on(tasks: Sequence[TaskDocument]) -> Flow[list[Document]]:
    """Send those of `tasks` that are to be sent; return those that something else follows from."""
    yield from publish([task for task in tasks if task.state == TaskState.PENDING])
    return [task for task in tasks if task.then]


def evaluate_task(task: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a task that was taken from its hold: its turn has come."""
    assert isinstance(task, TaskDocument)
    job = yield from recall(task.job_id)
    if job is None:
        return (yield from withdraw([task], gone=True))
    image = None
    if task.state == TaskState.CREATED:
        image = yield from _taken_turn(job, task, what)
    if image is None:
        yield from change_task(task.id, {}, {}, drop=(what.id,))
        return []
    return (yield from go_on([image]))


def _taken_turn(job: JobDocument, task: TaskDocument, what: Intent) -> Flow[TaskDocument | None]:
    at = yield from now()
    after = yield from with_turn(job, msgspec.structs.replace(task, then=[]), at)
    fields = cast("TaskFields", {name: getattr(after, name) for name in evaluation.TURN_FIELDS})
    move = TaskMove((TaskState.CREATED,), after.state)
    add = tuple(after.then)
    return (
        yield from change_task(task.id, {"hold": None}, fields, move=move, add=add, drop=(what.id,))
    )
