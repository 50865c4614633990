"""Withdraw below: what an owner that ended, was restarted, or is gone may have made below it is cancelled."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from coordinator.engine import transitions
from coordinator.engine.flow import (
    Flow,
    apply_many,
    change_job,
    change_task,
    delete_document,
    find,
    now,
    recall,
    send,
    task_change,
)
from coordinator.engine.job_ends import cancelled_by_user, marked_for_removal
from coordinator.engine.new_documents import ABANDON, intent
from coordinator.engine.transitions import TaskMove
from coordinator.engine.webhook_triggers import TASK_STATE, state_hook, wants
from shared.model.documents import Document, Intent, JobDocument, Micros, TaskDocument
from shared.model.messages import Stop
from shared.model.queries import Below
from shared.model.states import JOB_ACTIVE, TASK_ACTIVE, TaskKind, TaskState

CANCELLED = TaskMove(tuple(TASK_ACTIVE), TaskState.CANCELLED)

BEFORE_ITS_RUN = (TaskState.CREATED, TaskState.PENDING, TaskState.SCHEDULED)
NEVER_RAN = TaskMove(BEFORE_ITS_RUN, TaskState.CANCELLED)

BATCH = 500
"""Tasks that one step of a chain cancels or removes."""


def withdraw_below(
    owner: JobDocument | TaskDocument, what: Intent, restarts: int, *, gone: bool = False
) -> Flow[tuple[bool, list[Document]]]:
    """Withdraw what is active below a job (tasks of `restarts` or lower, parents first) or a task (its children, the
    sub-job attached to it), by a step of a bounded size, until a look finds nothing: a parent may have grown meanwhile.

    Return whether that is so, and what is to be followed. While it is not, the intent `what` stays with the owner; what
    earlier steps withdrew is not looked at again."""
    follow: list[Document] = []
    while found := (yield from _active_below(owner, restarts)):
        follow += yield from withdraw(found, gone=gone)
        if len(found) == BATCH:
            return False, [*follow, *(yield from again(owner, what))]
    return True, follow


def _active_below(
    owner: JobDocument | TaskDocument, restarts: int
) -> Flow[Sequence[JobDocument | TaskDocument]]:
    if isinstance(owner, TaskDocument) and owner.kind == TaskKind.SUBJOB:
        active = {"parent_id": owner.id, "state": transitions.any_state(JOB_ACTIVE)}
        return (yield from find(JobDocument, active, limit=BATCH))
    above = "job_id" if isinstance(owner, JobDocument) else "parent_id"
    where = {above: owner.id, "open": True, "active": True, "restarts": Below(restarts + 1)}
    # children are all of one depth: nothing need be put in order
    order = ("depth", "created_at") if isinstance(owner, JobDocument) else ()
    return (
        yield from find(TaskDocument, where, order=order, limit=BATCH, without=TaskDocument.heavy)
    )


def again(
    owner: JobDocument | TaskDocument, what: Intent, after: Micros = 0
) -> Flow[list[Document]]:
    """Keep an intent that a step was made of, which says that it is alive, due `after` from now; return what makes the
    next step follow at once."""
    at = (yield from now()) + after
    kept = msgspec.structs.replace(what, at=at, tries=0, error="")
    change = change_job if isinstance(owner, JobDocument) else change_task
    image = yield from change(owner.id, {}, {}, add=(kept,), drop=(what.id,))
    return [] if image is None else [msgspec.structs.replace(image, then=[kept])]


def withdraw(
    documents: Sequence[JobDocument | TaskDocument], *, gone: bool = False
) -> Flow[list[Document]]:
    """Cancel tasks and sub-jobs that are below something that ended; remove them where it is `gone`. Return what is to
    be followed, also of a task that was over before: whoever inserted it late is the only one to know of it."""
    follow: list[Document] = []
    waiting: Collection[str] = () if gone else (yield from _waiting(documents))
    for document in documents:
        if document.id in waiting:
            continue
        if isinstance(document, JobDocument):
            follow += yield from _withdraw_job(document, gone=gone)
        elif gone:
            yield from delete_document(TaskDocument, {"id": document.id})
        elif document.active:
            follow += yield from _withdraw_task(document)
        elif document.then:
            follow.append(document)
    if waiting:
        yield from _withdraw_waiting(waiting)
    return follow


def _waiting(documents: Sequence[JobDocument | TaskDocument]) -> Flow[Collection[str]]:
    """Return the ids of tasks that nobody has run yet, and no webhook hears of: of many thousand that are cancelled at
    once, nearly all."""
    found: set[str] = set()
    for document in documents:
        if not isinstance(document, TaskDocument) or document.nonce is not None:
            continue
        if document.state not in BEFORE_ITS_RUN or document.kind == TaskKind.SUBJOB:
            continue
        if not wants((yield from recall(document.job_id)), TASK_STATE):
            found.add(document.id)
    return found


def _withdraw_waiting(ids: Collection[str]) -> Flow[None]:
    """Cancel and close them, in bulk; one that a run was granted meanwhile is found at the next look."""
    at = yield from now()
    fields = transitions.task_end(TaskState.CANCELLED, at, open=False)
    yield from apply_many(
        [task_change(id, {"nonce": None}, fields, move=NEVER_RAN) for id in sorted(ids)]
    )


def _withdraw_job(job: JobDocument, *, gone: bool) -> Flow[list[Document]]:
    image = yield from cancelled_by_user(job)
    marked = (yield from marked_for_removal(job.id)) if gone else []
    return marked or ([image] if image is not None else [])


def _withdraw_task(task: TaskDocument) -> Flow[list[Document]]:
    """Cancel a task that is still active, close it, and stop its run.

    That the sub-job attached to it is to be cancelled too is an intent of it."""
    at = yield from now()
    add = state_hook((yield from recall(task.job_id)), TASK_STATE, TaskState.CANCELLED, at)
    if task.kind == TaskKind.SUBJOB:
        add = (intent(ABANDON, at), *add)
    fields = transitions.task_end(TaskState.CANCELLED, at, open=False)
    image = yield from change_task(task.id, {}, fields, move=CANCELLED, add=add)
    if image is None:
        return []
    if image.kind == TaskKind.CONTAINER and image.nonce:
        yield from send(image.node_id, Stop(nonces=[image.nonce], reason="cancelled"))
    return [image] if image.then else []


def abandon(task: Document, what: Intent) -> Flow[list[Document]]:
    """Follow the intent of a cancelled task that may have a sub-job attached: cancel that too."""
    assert isinstance(task, TaskDocument)
    return (yield from give_up_intent(task, what))


def give_up_intent(task: TaskDocument, what: Intent, *, gone: bool = False) -> Flow[list[Document]]:
    """Drop an intent that makes something below a task that is not to go on: the task is cancelled, and what the intent
    may have made is withdrawn, before that. Where its job is `gone`, the task goes too."""
    if task.active and not gone:
        return (yield from withdraw([task]))
    over, follow = yield from withdraw_below(task, what, task.restarts, gone=gone)
    if over and gone:
        yield from delete_document(TaskDocument, {"id": task.id})
    elif over:
        yield from change_task(task.id, {}, {}, drop=(what.id,))
    return follow
