"""Flows: the effects that a decision can yield, and the answer to each.

A flow knows no store and no broker. It yields effects; the answer to each is what `yield` returns. The functions
here give each effect its type.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from coordinator.engine.transitions import JobFields, JobMove, TaskFields, TaskMove
from shared.expressions import ExpressionError, Texts
from shared.expressions.limits import MAX_BYTES, MAX_STEPS, Budget
from shared.model.documents import (
    Document,
    Intent,
    JobDocument,
    LogPartDocument,
    Micros,
    NodeDocument,
    Pulse,
    QueueDocument,
    TaskDocument,
)
from shared.model.messages import Message
from shared.model.queries import Change, D, Where

_T = TypeVar("_T")
_Free = TypeVar("_Free", NodeDocument, Pulse, QueueDocument)
"""Documents that have no state, and so no table of what it may become."""


class Unread(Document, kw_only=True):
    """A task that something is to follow from, and that is read when its turn comes: many whole ones together may be
    of gigabytes."""


class JobChange(Change[JobDocument], frozen=True, kw_only=True):
    """A change of a job, as `job_change` makes it: its state is written by a move, which keeps to the table."""


class TaskChange(Change[TaskDocument], frozen=True, kw_only=True):
    """A change of a task, as `task_change` makes it: its state is written by a move, which keeps to the table."""


class Get(msgspec.Struct, Generic[D], frozen=True):
    """Read a document."""

    kind: type[D]
    id: str


class Recall(msgspec.Struct, frozen=True):
    """Read a job whose fixed part alone is wanted: it may be an old image from a cache."""

    id: str


class Find(msgspec.Struct, Generic[D], frozen=True, kw_only=True):
    """Read what matches."""

    kind: type[D]
    where: Where
    order: tuple[str, ...] = ()
    limit: int | None = None
    without: tuple[str, ...] = ()


class Count(msgspec.Struct, Generic[D], frozen=True):
    """Count what matches."""

    kind: type[D]
    where: Where


class Insert(msgspec.Struct, frozen=True):
    """Write a new document. Answers whether it was new; None where its slot is taken."""

    document: Document


class InsertMany(msgspec.Struct, frozen=True):
    """Write those that are new. Answers how many were."""

    documents: Sequence[Document]


class ChangeFirst(msgspec.Struct, frozen=True, kw_only=True):
    """Compare-and-set on the first task that matches."""

    where: Where
    order: tuple[str, ...]
    set: TaskFields
    add_then: tuple[Intent, ...] = ()


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """Delete what matches, at most `limit`. Answers how many were."""

    kind: type[Document]
    where: Where
    limit: int | None = None


class Later(msgspec.Struct, frozen=True):
    """A compare-and-set to be made soon, in bulk, by nobody awaited. A crash may lose it: it must be a courtesy."""

    change: JobChange | TaskChange


class Apply(msgspec.Struct, frozen=True):
    """A compare-and-set whose document is not read back: it may be one that can't be. Answers whether it matched."""

    change: JobChange | TaskChange


class ApplyMany(msgspec.Struct, frozen=True):
    """Compare-and-sets, each for itself, in bulk; nothing is read back. Answers how many matched."""

    changes: Sequence[TaskChange]


class Publish(msgspec.Struct, frozen=True):
    """Send these tasks (PENDING, evaluated) to their queues, with confirms, then mark them SCHEDULED."""

    tasks: Sequence[TaskDocument]


class Send(msgspec.Struct, frozen=True):
    """Send a message to a node's own queue: best effort, the beats repeat what matters."""

    node_id: str
    message: Message


class Lease(msgspec.Struct, frozen=True):
    """Read a node's document: it may be an old image while the lease in it lasts 15 s more."""

    node_id: str


class Standing(msgspec.Struct, frozen=True):
    """Read a job's state and `restarts`, not before this is asked; its big fields are left out."""

    job_id: str


class Started(msgspec.Struct, frozen=True):
    """A task of this job was granted, or a composite begun: see to it that the job is RUNNING."""

    job_id: str
    at: Micros


class DropLogs(msgspec.Struct, frozen=True):
    """Delete the log of runs of a task before `run`, soon: nobody waits for it, and nobody reads it any more."""

    task_id: str
    run: int


class Evaluate(msgspec.Struct, frozen=True):
    """Carry out an evaluation of templates: on the loop where it takes few steps, else elsewhere. Answers what `work`
    gives (or the `ExpressionError` that it raises): a pure function that can be pickled, and begun anew."""

    work: Callable[[Budget], Any]
    about: str
    """The id of what it is for: the same is not evaluated twice at a time."""
    user: str


class GrowthTurn(msgspec.Struct, frozen=True):
    """Wait until a composite may insert its next children: few do at a time, users in turn."""

    user: str


class GrowthOver(msgspec.Struct, frozen=True):
    """They are inserted."""


class Vars(msgspec.Struct, frozen=True):
    """Read `tasks.<var>` of a job, as its restart `restarts`, which began at position `began`, sees it. Answers
    `TooManyTexts` where that is more than an evaluation may build."""

    job_id: str
    names: tuple[str, ...] | None
    restarts: int
    began: int | None


class AppendLog(msgspec.Struct, frozen=True):
    """Store parts of a log; repeats do nothing."""

    parts: Sequence[LogPartDocument]


class Now(msgspec.Struct, frozen=True):
    """The store's clock."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's times and bounds (configuration spec, `engine`). Times in microseconds."""

    lease: Micros
    reconnect_cap: Micros
    redeliveries: int
    redaction_keys: tuple[str, ...]
    """Values whose key contains one of these are never shown (configuration spec, `redaction`)."""
    job_window: int
    expression_steps: int = MAX_STEPS
    expression_bytes: int = MAX_BYTES
    """What the templates of one task share (also those of an output, and of the webhooks of one event)."""
    output_bytes: int
    """Of a job's result (configuration spec, `worker.limits.output`)."""
    handler_deadline: Micros = 10_000_000
    """What a handler has for a message; no setting."""


class AskBounds(msgspec.Struct, frozen=True):
    """Read the configured bounds."""


class Hide(msgspec.Struct, frozen=True):
    """Get ready to look for values that must not be shown."""

    values: Collection[str]


class Noted(msgspec.Struct, frozen=True):
    """Count something for the metrics and the log: `what` is a fixed name."""

    what: str
    subject: str


Effect = (
    Get[Any] | Recall | Find[Any] | Count[Any] | Insert | InsertMany | JobChange | TaskChange
    | Change[NodeDocument] | Change[Pulse] | Change[QueueDocument] | ChangeFirst | Delete | Later | Apply | ApplyMany
    | Publish | Send | Lease | Standing | Started | DropLogs | Evaluate | Vars | AppendLog | Now | AskBounds | Hide
    | GrowthTurn | GrowthOver | Noted
)  # fmt: skip
Flow = Generator[Effect, Any, _T]


def get(kind: type[D], id: str) -> Flow[D | None]:
    """Read a document."""
    found: D | None = yield Get(kind, id)
    return found


def recall(job_id: str) -> Flow[JobDocument | None]:
    """Read a job's fixed part (definition, ids, who made it), perhaps from a cache."""
    found: JobDocument | None = yield Recall(job_id)
    return found


def find(
    kind: type[D],
    where: Where,
    *,
    order: tuple[str, ...] = (),
    limit: int | None = None,
    without: tuple[str, ...] = (),
) -> Flow[list[D]]:
    """Read what matches."""
    found: list[D] = yield Find(kind=kind, where=where, order=order, limit=limit, without=without)
    return found


def count(kind: type[Document], where: Where) -> Flow[int]:
    """Count what matches."""
    found: int = yield Count(kind, where)
    return found


def insert(document: Document) -> Flow[bool | None]:
    """Write a new document: True new, False there already, None refused by a unique slot."""
    new: bool | None = yield Insert(document)
    return new


def insert_many(documents: Sequence[Document]) -> Flow[int]:
    """Write those that are new."""
    count: int = yield InsertMany(documents)
    return count


def job_change(
    id: str,
    where: Where,
    set: JobFields,
    *,
    move: JobMove | None = None,
    add: tuple[Intent, ...] = (),
    drop: tuple[str, ...] = (),
) -> JobChange:
    """Return the change of a job that matches `where` and is in a state that `move` is from."""
    where, fields = _with_move(where, set, move)
    return JobChange(kind=JobDocument, id=id, where=where, set=fields, add_then=add, drop_then=drop)


def task_change(
    id: str,
    where: Where,
    set: TaskFields,
    *,
    move: TaskMove | None = None,
    add: tuple[Intent, ...] = (),
    drop: tuple[str, ...] = (),
) -> TaskChange:
    """Return the change of a task that matches `where` and is in a state that `move` is from."""
    where, fields = _with_move(where, set, move)
    return TaskChange(
        kind=TaskDocument, id=id, where=where, set=fields, add_then=add, drop_then=drop
    )


def _with_move(
    where: Where, fields: Mapping[str, object], move: JobMove | TaskMove | None
) -> tuple[Where, Mapping[str, object]]:
    if move is None:
        return where, fields
    return {**where, "state": move.where()}, {**fields, "state": move.to}


def change_job(
    id: str,
    where: Where,
    set: JobFields,
    *,
    move: JobMove | None = None,
    add: tuple[Intent, ...] = (),
    drop: tuple[str, ...] = (),
) -> Flow[JobDocument | None]:
    """Compare and set; the job as it is then, or None where it has moved on."""
    image: JobDocument | None = yield job_change(id, where, set, move=move, add=add, drop=drop)
    return image


def change_task(
    id: str,
    where: Where,
    set: TaskFields,
    *,
    move: TaskMove | None = None,
    add: tuple[Intent, ...] = (),
    drop: tuple[str, ...] = (),
) -> Flow[TaskDocument | None]:
    """Compare and set; the task as it is then, or None where it has moved on."""
    image: TaskDocument | None = yield task_change(id, where, set, move=move, add=add, drop=drop)
    return image


def change(kind: type[_Free], id: str, where: Where, set: dict[str, Any]) -> Flow[_Free | None]:
    """Compare and set; the document as it is then, or None where it has moved on."""
    image: _Free | None = yield Change(kind=kind, id=id, where=where, set=set)
    return image


def change_first_task(
    where: Where, order: tuple[str, ...], set: TaskFields, *, add: tuple[Intent, ...] = ()
) -> Flow[TaskDocument | None]:
    """Compare and set the first task that matches."""
    image: TaskDocument | None = yield ChangeFirst(where=where, order=order, set=set, add_then=add)
    return image


def delete_document(kind: type[Document], where: Where, limit: int | None = None) -> Flow[int]:
    """Delete what matches, at most `limit`; return how many were."""
    count: int = yield Delete(kind=kind, where=where, limit=limit)
    return count


def standing(job_id: str) -> Flow[JobDocument | None]:
    """Read how a job stands now: its state and `restarts`, not its definition."""
    found: JobDocument | None = yield Standing(job_id)
    return found


def later(change: JobChange | TaskChange) -> Flow[None]:
    """Compare and set, in bulk, soon."""
    yield Later(change)


def apply(change: JobChange | TaskChange) -> Flow[bool]:
    """Compare and set, without reading back; return whether it matched."""
    matched: bool = yield Apply(change)
    return matched


def apply_many(changes: Sequence[TaskChange]) -> Flow[int]:
    """Compare and set, each for itself, without reading back; return how many matched."""
    matched: int = yield ApplyMany(changes)
    return matched


def publish(tasks: Sequence[TaskDocument]) -> Flow[bool]:
    """Send tasks to their queues; return whether the broker took all that there was to send."""
    if not tasks:
        return True
    taken: bool = yield Publish(tasks)
    return taken


def send(node_id: str | None, message: Message) -> Flow[None]:
    """Tell a node something."""
    if node_id:
        yield Send(node_id, message)


def evaluate(work: Callable[[Budget], _T], about: str, user: str) -> Flow[_T]:
    """Carry out an evaluation: the templates that `work` evaluates share one budget.

    Raises the `ExpressionError` that it raises."""
    found: _T | ExpressionError = yield Evaluate(work, about, user)
    if isinstance(found, ExpressionError):
        raise found
    return found


def read_vars(job: JobDocument, names: tuple[str, ...] | None, restarts: int) -> Flow[Texts]:
    """Read `tasks.<var>` as a restart of a job sees it: of earlier ones only what was done before it began."""
    if names == ():
        return Texts({})
    if job.restarts < restarts:
        job = (yield from get(JobDocument, job.id)) or job
    began = job.restarted_from if job.restarts == restarts else None
    found: Texts = yield Vars(job.id, names, restarts, began)
    return found


def now() -> Flow[Micros]:
    """Return the store's clock."""
    at: Micros = yield Now()
    return at


def hide(values: Collection[str]) -> Flow[None]:
    """Get ready to look for values that must not be shown: what does so is not made while all else waits."""
    yield Hide(values)


def bounds() -> Flow[Bounds]:
    """Return the configured bounds."""
    configured: Bounds = yield AskBounds()
    return configured


def note_event(what: str, subject: str = "") -> Flow[None]:
    """Count something."""
    yield Noted(what, subject)
