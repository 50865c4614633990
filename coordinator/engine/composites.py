"""Composites: `parallel` and `each` insert children, `subjob` creates a job; over when nothing below is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import msgspec

from coordinator.engine import evaluation, new_documents, slots, task_start, transitions
from coordinator.engine.flow import (
    Flow,
    GrowthOver,
    GrowthTurn,
    Started,
    bounds,
    change_task,
    evaluate,
    find,
    get,
    hide,
    insert,
    now,
    recall,
)
from coordinator.engine.job_ends import goes_on
from coordinator.engine.new_documents import ABANDON, ENDED_INTENT, EXPAND, intent
from coordinator.engine.transitions import TaskFields, TaskMove
from coordinator.engine.webhook_triggers import JOB_STATE, TASK_STATE, state_hook
from coordinator.engine.withdrawal import give_up_intent, withdraw, withdraw_below
from shared.errors import Unstorable
from shared.expressions import Budget, ExpressionError
from shared.ids import derived_id
from shared.model import language
from shared.model.declared_secrets import hidden_values
from shared.model.documents import (
    Document,
    Intent,
    ItemsDocument,
    JobDocument,
    Micros,
    TaskDocument,
)
from shared.model.queries import Above, Below, In
from shared.model.rules import MAX_INHERITED_BYTES, size_of_secrets
from shared.model.states import Hold, TaskKind, TaskState
from shared.model.views.redacted import secrets_of

COMPLETED = TaskMove((TaskState.RUNNING,), TaskState.COMPLETED)

CHILD_BATCH = 200
"""Children inserted by one bulk write."""

CHUNK_ITEMS = 500
CHUNK_BYTES = 1024 * 1024
"""Items of an evaluated list are stored in parts of at most so many, and about so many bytes."""


def expand(task: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a composite that has begun: insert what is below it."""
    assert isinstance(task, TaskDocument)
    known = yield from recall(task.job_id)
    if known is not None:
        yield GrowthTurn(known.created_by.id)
    follow = yield from _expand(task, what)
    yield GrowthOver()
    return follow


def _expand(task: TaskDocument, what: Intent) -> Flow[list[Document]]:
    job = yield from get(JobDocument, task.job_id)
    if job is None or task.state != TaskState.RUNNING or not goes_on(job, task.restarts):
        return (yield from give_up_intent(task, what, gone=job is None))
    window = (yield from bounds()).job_window
    yield Started(job.id, task.started_at or 0)
    match task.kind:
        case TaskKind.PARALLEL:
            return (yield from _expand_parallel(job, task, window))
        case TaskKind.EACH:
            return (yield from _expand_each(job, task, window))
        case _:
            return (yield from _expand_subjob(job, task))


# --- parallel and each --------------------------------------------------------------------------------------------


def _expand_parallel(job: JobDocument, parent: TaskDocument, window: int) -> Flow[list[Document]]:
    assert parent.definition.parallel is not None
    size = len(parent.definition.parallel.tasks)
    return (yield from _grow_whole(job, parent, size, _Numbers(window, 0), _next_of_parallel))


def _next_of_parallel(job: JobDocument, parent: TaskDocument) -> Flow[list[TaskDocument]]:
    assert parent.definition.parallel is not None
    at = yield from now()
    first = parent.expanded_to
    definitions = parent.definition.parallel.tasks[first : first + CHILD_BATCH]
    return [
        new_documents.child_task(job, parent, definition, index, parent.scope, at)
        for index, definition in enumerate(definitions, first)
    ]


def _expand_each(job: JobDocument, parent: TaskDocument, window: int) -> Flow[list[Document]]:
    each = parent.definition.each
    assert each is not None
    if parent.list_digest is None:
        stored = yield from _store_list(job, parent)
        if isinstance(stored, list):
            return stored
        parent = stored
    numbers = _Numbers(window, each.concurrency or 0)
    return (yield from _grow_whole(job, parent, parent.size or 0, numbers, _next_of_each))


def _next_of_each(job: JobDocument, parent: TaskDocument) -> Flow[list[TaskDocument]]:
    each = parent.definition.each
    assert each is not None
    assert each.task is not None
    at = yield from now()
    first = parent.expanded_to
    entries = yield from _entries(parent, first, CHILD_BATCH)
    return [
        new_documents.child_task(
            job, parent, each.task, index, _loop(parent, each, index, entry), at
        )
        for index, entry in enumerate(entries, first)
    ]


def _grow_whole(
    job: JobDocument, parent: TaskDocument, size: int, numbers: _Numbers, next_children: _Next
) -> Flow[list[Document]]:
    """Insert all children of a composite, batch by batch; with much to follow, leave the rest for after that."""
    follow: list[Document] = []
    while True:
        yield GrowthTurn(job.created_by.id)
        first = parent.expanded_to
        children = yield from next_children(job, parent)
        grown, more = yield from _grow(job, parent, children, size, numbers)
        yield GrowthOver()
        follow += more
        if grown is None or grown.expanded or grown.expanded_to <= first:
            return follow
        if len(follow) >= CHILD_BATCH:
            return [*follow, grown]
        parent = grown


_Next = Callable[[JobDocument, TaskDocument], Flow[list[TaskDocument]]]
"""Gives the children that come next in a composite."""


def _loop(
    parent: TaskDocument, each: language.Each, index: int, entry: dict[str, Any]
) -> dict[str, Any]:
    return {**parent.scope, each.variable: {"index": str(index), **entry}}


class _Numbers:
    """The numbers of slots and window that a growing composite gives to its first children."""

    def __init__(self, window: int, concurrency: int) -> None:
        self.window = window
        self.concurrency = concurrency
        self._full: set[str] = set()

    def give(self, children: Sequence[TaskDocument]) -> Flow[list[TaskDocument]]:
        """Return the children with the numbers that are free now, and on hold where there are none."""
        windows: dict[str, list[int]] = {}
        for key in {child.window_of for child in children if child.window_of}:
            full = key in self._full
            free = (
                []
                if full
                else (yield from slots.free_numbers("window_of", "window", key, self.window))
            )
            if not free:
                self._full.add(key)
            windows[key] = free[::-1]
        return [self._with_numbers(child, windows) for child in children]

    def _with_numbers(self, child: TaskDocument, windows: dict[str, list[int]]) -> TaskDocument:
        fields: dict[str, Any] = {}
        if self.concurrency:
            fields = {"slot_of": child.parent_id, "slot": child.index}
        free = windows.get(child.window_of or "")
        if 0 < self.concurrency <= child.index:
            fields |= {"slot": None, "hold": Hold.CONCURRENCY}
        elif free:
            fields["window"] = free.pop()
        elif free is not None:
            fields["hold"] = Hold.WINDOW
        return msgspec.structs.replace(child, **fields)


def _grow(
    job: JobDocument,
    parent: TaskDocument,
    children: list[TaskDocument],
    size: int,
    numbers: _Numbers,
) -> Flow[tuple[TaskDocument | None, list[Document]]]:
    """Insert as many of `children` as go together, look again at the parent, publish. The last batch ends the growth,
    any other says that it is alive. Return the parent as it is then, and what is to be followed."""
    at = yield from now()
    numbered = yield from numbers.give(children)
    count, placed = yield from task_start.place_many(job, numbered, at)
    children = children[:count]
    reached = parent.expanded_to + count
    last = reached >= size
    fields: TaskFields = {"expanded_to": reached, "size": size}
    if last:
        fields["expanded"] = True
    where = {
        "state": TaskState.RUNNING,
        "restarts": parent.restarts,
        "expanded": False,
        "expanded_to": parent.expanded_to,
    }
    add = () if last else (intent(EXPAND, (yield from now())),)
    image = yield from change_task(parent.id, where, fields, add=add, drop=(EXPAND,))
    if image is None:
        return None, (yield from _not_grown(parent, children, placed))
    follow = yield from task_start.go_on(placed)
    if last:
        follow += yield from complete_if_done(parent.id, job)
        follow += yield from _offer_again(children, numbers)
    return image, follow


def _not_grown(
    parent: TaskDocument, children: Sequence[TaskDocument], placed: Sequence[TaskDocument]
) -> Flow[list[Document]]:
    """Withdraw children whose parent has ended, as they are now, and close what was over when it was made; where
    somebody else expands it too, they are that one's."""
    present = yield from get(TaskDocument, parent.id)
    if present is None:
        return (yield from withdraw(children, gone=True))
    if present.state == TaskState.RUNNING:
        return []
    what = intent(EXPAND, (yield from now()))
    _, follow = yield from withdraw_below(present, what, present.restarts)
    return [*follow, *(child for child in placed if not child.active)]


def _offer_again(children: Sequence[TaskDocument], numbers: _Numbers) -> Flow[list[Document]]:
    """Offer numbers that were given up while the last children were being inserted held."""
    follow: list[Document] = []
    if numbers.concurrency and children:
        follow += yield from slots.offer_slots(str(children[0].parent_id), numbers.concurrency)
    for window in sorted({child.window_of for child in children if child.window_of}):
        waiting = yield from find(
            TaskDocument,
            {"window_of": window, "hold": Hold.WINDOW},
            limit=1,
            without=TaskDocument.heavy,
        )
        if waiting:
            follow += yield from slots.offer_window(window, numbers.window)
    return follow


# --- the list of an each ------------------------------------------------------------------------------------------


def _store_list(job: JobDocument, task: TaskDocument) -> Flow[TaskDocument | list[Document]]:
    """Evaluate the list and store it in parts; return the task that knows it, or what follows where that failed."""
    at = yield from now()
    scope = yield from task_start.scope_of(job, task)
    work = partial(_list_in_chunks, task, scope, task.evaluated_at or at)
    try:
        digest, size, chunks = yield from evaluate(work, task.id, job.created_by.id)
        for chunk in chunks:
            yield from insert(chunk)
    except ExpressionError as error:
        return (yield from _not_evaluated(task, error))
    except Unstorable as error:
        error.add_note("each.list")
        return (yield from _not_evaluated(task, error))
    where = {"state": TaskState.RUNNING, "list_digest": None}
    fields: TaskFields = {"list_digest": digest, "size": size}
    image = yield from change_task(task.id, where, fields)
    return image or (yield from get(TaskDocument, task.id)) or []


def _not_evaluated(task: TaskDocument, error: ExpressionError | Unstorable) -> Flow[list[Document]]:
    reason = f"task {task.name!r}: {evaluation.said(error)}"
    return (yield from end_composite(task, TaskState.FAILED, reason))


def _list_in_chunks(
    task: TaskDocument, scope: Mapping[str, object], at: Micros, budget: Budget
) -> tuple[str, int, list[ItemsDocument]]:
    entries = evaluation.each_items(task, scope, at, budget)
    digest = derived_id(msgspec.json.encode(entries).decode())
    return digest, len(entries), _chunks(task, digest, entries)


def _chunks(task: TaskDocument, digest: str, entries: Sequence[Any]) -> list[ItemsDocument]:
    chunks: list[ItemsDocument] = []
    first, size = 0, 0
    for index, entry in enumerate(entries):
        size += len(msgspec.json.encode(entry))
        full = index + 1 - first >= CHUNK_ITEMS or size >= CHUNK_BYTES
        if full or index + 1 == len(entries):
            id = derived_id("items", task.id, digest, first)
            values = list(entries[first : index + 1])
            chunks.append(
                ItemsDocument(
                    id=id,
                    task_id=task.id,
                    job_id=task.job_id,
                    digest=digest,
                    first=first,
                    values=values,
                )
            )
            first, size = index + 1, 0
    return chunks


def _entries(task: TaskDocument, first: int, count: int) -> Flow[list[dict[str, Any]]]:
    """Return items `first` to `first + count` of the stored list."""
    where: dict[str, Any] = {"task_id": task.id, "digest": task.list_digest}
    chunks = yield from find(
        ItemsDocument, {**where, "first": Below(first + 1)}, order=("-first",), limit=1
    )
    if not chunks:
        return []
    base = chunks[0].first
    while sum(len(chunk.values) for chunk in chunks) < first + count - base:
        beyond = {**where, "first": Above(chunks[-1].first)}
        more = yield from find(ItemsDocument, beyond, order=("first",), limit=1)
        if not more:
            break
        chunks += more
    entries = [entry for chunk in chunks for entry in chunk.values]
    return entries[first - base : first - base + count]


# --- sub-jobs -----------------------------------------------------------------------------------------------------


def _expand_subjob(job: JobDocument, task: TaskDocument) -> Flow[list[Document]]:
    assert task.definition.subjob is not None
    at = yield from now()
    if task.depth + 1 > language.MAX_COMPOSITE_DEPTH:
        return (
            yield from end_composite(
                task, TaskState.FAILED, f"nested deeper than {language.MAX_COMPOSITE_DEPTH}"
            )
        )
    scope = yield from task_start.scope_of(job, task)
    subjob, began = task.definition.subjob, task.evaluated_at or at
    work = partial(evaluation.subjob_of, subjob, scope, began, task.seed)
    try:
        definition = yield from evaluate(work, task.id, job.created_by.id)
        keys = (yield from bounds()).redaction_keys
        yield from hide({*secrets_of(job), *hidden_values(definition, keys)})
        child = _subjob(job, task, definition, keys, at)
        yield from insert(child)
    except (ExpressionError, Unstorable) as error:
        error.add_note("subjob")
        return (yield from _not_evaluated(task, error))
    fields: TaskFields = {"subjob_id": child.id, "expanded": True}
    if task.definition.subjob.detached:
        ended = yield from end_composite(task, TaskState.COMPLETED, None, **fields)
        return [*ended, *(yield from _present(child))]
    where = {"state": TaskState.RUNNING, "restarts": task.restarts}
    image = yield from change_task(task.id, where, fields, drop=(EXPAND,))
    if image is None:
        add = (intent(ABANDON, at),)
        image = yield from change_task(task.id, {}, {}, add=add, drop=(EXPAND,))
        if image is not None:
            return [image]
    return (yield from _present(child))  # where its task has gone, whoever begins it withdraws it


def _present(job: JobDocument) -> Flow[list[Document]]:
    """Return a job as it is now; nothing where it has gone."""
    found = yield from get(JobDocument, job.id)
    return [] if found is None else [found]


def _subjob(
    job: JobDocument,
    task: TaskDocument,
    definition: language.JobDefinition,
    keys: Sequence[str],
    at: Micros,
) -> JobDocument:
    assert task.definition.subjob is not None
    id, detached = derived_id("subjob", task.id), task.definition.subjob.detached
    made = new_documents.new_job(
        definition,
        id,
        at,
        root_id=id if detached else job.root_id,
        parent_id=None if detached else task.id,
        detached_from=task.id if detached else None,
        depth=task.depth + 1,
        created_by=job.created_by,
        hidden_by=job.hidden_by,
        permissions=job.permissions,
        keys=keys,
        inherited=secrets_of(job),
        trace=job.trace,
    )
    if size_of_secrets(secrets_of(made)) > MAX_INHERITED_BYTES:
        raise ExpressionError(
            f"more than {MAX_INHERITED_BYTES // 1024} KiB of secret values, with those of the jobs above it"
        )
    made.then += state_hook(made, JOB_STATE, made.state, at)
    return made


# --- the end of a composite ---------------------------------------------------------------------------------------


def complete_if_done(parent_id: str, job: JobDocument) -> Flow[list[Document]]:
    """Complete a `parallel` or `each` that is fully expanded and has nothing open below it."""
    below = yield from find(
        TaskDocument, {"parent_id": parent_id, "open": True}, limit=1, without=TaskDocument.heavy
    )
    if below:
        return []
    at = yield from now()
    where = {"expanded": True, "kind": In((TaskKind.PARALLEL, TaskKind.EACH))}
    fields = transitions.task_end(TaskState.COMPLETED, at, progress=100.0)
    add = (intent(ENDED_INTENT, at), *state_hook(job, TASK_STATE, TaskState.COMPLETED, at))
    image = yield from change_task(parent_id, where, fields, move=COMPLETED, add=add)
    return [image] if image else []


def end_composite(
    task: TaskDocument, state: TaskState, error: str | None, /, **more: Unpack[TaskFields]
) -> Flow[list[Document]]:
    """End a composite that is still running; return it if this did."""
    job = yield from recall(task.job_id)
    at = yield from now()
    kept = evaluation.kept_error(job, error)
    fields: TaskFields = {**transitions.task_end(state, at, **more), "error": kept}
    if state == TaskState.COMPLETED:
        fields["progress"] = 100.0
    add = (intent(ENDED_INTENT, at), *state_hook(job, TASK_STATE, state, at))
    move, where = TaskMove((TaskState.RUNNING,), state), {"restarts": task.restarts}
    image = yield from change_task(task.id, where, fields, move=move, add=add, drop=(EXPAND,))
    return [image] if image else []
