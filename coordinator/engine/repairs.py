"""What the sweeper looks for, and how it repairs what it finds. In a quiet system it finds nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from coordinator.engine import beats, composites, orphans, slots, task_start
from coordinator.engine.flow import (
    Flow,
    TaskChange,
    Unread,
    apply,
    apply_many,
    bounds,
    change,
    change_task,
    find,
    get,
    note_event,
    now,
    publish,
    recall,
    task_change,
)
from coordinator.engine.new_documents import EVALUATE, intent
from coordinator.engine.task_ends import tell_parent
from coordinator.engine.transitions import TaskMove
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    JobDocument,
    Micros,
    NodeDocument,
    QueueDocument,
    TaskDocument,
)
from shared.model.queries import Above, Below, In
from shared.model.states import JOB_ENDED, Hold, TaskKind, TaskState

SENT_AGAIN = TaskMove((TaskState.SCHEDULED,), TaskState.PENDING)

REPAIRS_AT_ONCE = 500
"""Things looked at in one sweep of a kind."""

READS_A_SWEEP = 20
"""So often a look reads on behind what can't be sent now."""

SENT_AT_ONCE = 16
"""Tasks sent together, each whole: they may be of megabytes."""

UNCONFIRMED: Micros = 10 * MICROS_PER_SECOND
"""PENDING for so long since it was last sent: send it again."""

UNHEARD: Micros = 10 * MICROS_PER_SECOND
"""SCHEDULED for so long: it may be asked whether anybody has it."""

OVERTAKEN: Micros = 30 * MICROS_PER_SECOND
"""A task whose first message was sent so much later was granted first: the earlier message is lost."""

UNUSED: Micros = 3_600 * MICROS_PER_SECOND
"""A queue that was not in use for so long is deleted if it is empty."""

UNUSED_AT_ONCE = 50


class Rounds(msgspec.Struct):
    """How far the looks have come that go round: where there is more than one look takes, the next goes on there."""

    composites: str = ""
    slots: str = ""
    windows: str = ""
    queues: str = ""


def release_delayed() -> Flow[list[Document]]:
    """Take retries whose delay is over from their hold; one whose slot was given away waits for another."""
    at = yield from now()
    where = {"hold": Hold.DELAY, "due_at": Below(at + 1)}
    follow: list[Document] = []
    due = yield from find(
        TaskDocument, where, order=("due_at",), limit=REPAIRS_AT_ONCE, without=TaskDocument.heavy
    )
    for task in due:
        held = {"hold": Hold.DELAY, "state": TaskState.CREATED}
        wanted = task_start.number_wanted(task)
        add = () if wanted else (intent(EVALUATE, at),)
        change = task_change(task.id, held, {"hold": wanted}, add=add)
        if (yield from apply(change)):
            follow += (yield from _offer_to(task, wanted)) if wanted else [Unread(id=task.id)]
    return follow


def _offer_to(task: TaskDocument, wanted: Hold) -> Flow[list[Document]]:
    """Offer the free numbers that a task has begun to wait for."""
    follow: list[Document] = []
    if wanted == Hold.CONCURRENCY and task.slot_of:
        follow += yield from _offer_slots(task.slot_of)
    if task.window_of:
        window = (yield from bounds()).job_window
        follow += yield from slots.offer_window(task.window_of, window)
    return follow


def unconfirmed() -> Flow[list[Document]]:
    """Send again what is PENDING and was not confirmed. Where a queue takes nothing, what else waits for it is put off,
    and it is looked at what is behind that."""
    at = yield from now()
    follow: list[Document] = []
    refusing: set[str | None] = set()
    for _ in range(READS_A_SWEEP):
        found = yield from _sent_first(TaskState.PENDING, {"published_at": Below(at - UNCONFIRMED)})
        waiting, more = yield from orphans.still_wanted(found)
        follow += more
        put_off: list[TaskChange] = []
        for task in waiting:
            seen = {"state": TaskState.PENDING, "published_at": task.published_at}
            if task.queue in refusing:
                put_off.append(task_change(task.id, seen, {"published_at": at}))
                continue
            image = yield from change_task(task.id, seen, {"published_at": at})
            if image is not None:
                yield from note_event("swept_unconfirmed", task.id)
                if not (yield from publish([image])):
                    refusing.add(task.queue)
        yield from apply_many(put_off)
        if not put_off or len(found) < REPAIRS_AT_ONCE:
            break
    return follow


def waited_in(rounds: Rounds) -> Flow[list[str]]:
    """Return the queues that a worker takes from in which a task has been SCHEDULED for so long that it may be lost.

    Whoever may take a task knows its queue; a job may name as many queues as it likes, and only its own tasks wait
    for them."""
    old: dict[str, object] = {"published_at": Below((yield from now()) - UNHEARD)}
    if not (yield from _sent_first(TaskState.SCHEDULED, old, limit=1)):
        return []
    taken = sorted((yield from queues_taken()))
    turn = [queue for queue in taken if queue > rounds.queues][:REPAIRS_AT_ONCE]
    rounds.queues = turn[-1] if len(turn) == REPAIRS_AT_ONCE else ""
    waited: list[str] = []
    for queue in turn:
        lost = yield from _sent_first(TaskState.SCHEDULED, {"queue": queue, **old}, limit=1)
        waited += [queue] if lost else []
    return waited


def queues_taken() -> Flow[set[str]]:
    """Return the queues that a worker takes from, by the last beats."""
    nodes = yield from find(NodeDocument, {"closed": False, "draining": False})
    return {queue for node in nodes for queue in node.queues}


def unused_queues() -> Flow[list[QueueDocument]]:
    """Return queues that nobody takes from, no task waits for, and nothing was sent to for long; no other coordinator
    is given the same. What is in use is marked as such."""
    at = yield from now()
    where = {"used_at": Below(at - UNUSED)}
    late = yield from find(QueueDocument, where, order=("used_at",), limit=UNUSED_AT_ONCE)
    taken = (yield from queues_taken()) if late else set()
    unused: list[QueueDocument] = []
    for queue in late:
        seen = {"used_at": queue.used_at}
        image = yield from change(QueueDocument, queue.id, seen, {"used_at": at})
        if image is None or queue.id in taken:
            continue
        if not (yield from _sent_first(TaskState.SCHEDULED, {"queue": queue.id}, limit=1)):
            unused.append(image)
    return unused


def unheard(quiet: Collection[str], grants: Mapping[str, Grant]) -> Flow[list[Document]]:
    """Send again what is SCHEDULED while nobody holds it, in a queue that had nothing ready at two sweeps (`quiet`),
    or that was overtaken by one of `grants`."""
    at = yield from now()
    old = Below(at - UNHEARD)
    waiting = yield from _sent_first(
        TaskState.SCHEDULED, {"queue": In(tuple(quiet)), "published_at": old}
    )
    for queue, grant in grants.items():
        overtaken = {"queue": queue, "published_at": Below(grant.first_sent_at - OVERTAKEN)}
        found = yield from _sent_first(TaskState.SCHEDULED, overtaken)
        waiting += [task for task in found if task.priority >= grant.priority]
    if not waiting:
        return []
    holding = yield from held_by_nodes()
    unheld = [task for task in waiting if task.id not in holding]
    unheld, follow = yield from orphans.still_wanted(unheld)
    for task in unheld:
        yield from _send_again(task, at)
    return follow


def _sent_first(
    state: TaskState, where: dict[str, object], limit: int = REPAIRS_AT_ONCE
) -> Flow[list[TaskDocument]]:
    """Read the tasks in a state that were sent longest ago, without what is large in them."""
    where = {"state": state, **where}
    return (
        yield from find(
            TaskDocument, where, order=("published_at",), limit=limit, without=TaskDocument.heavy
        )
    )


def _send_again(task: TaskDocument, at: Micros) -> Flow[None]:
    seen = {"published_at": task.published_at}
    image = yield from change_task(task.id, seen, {"published_at": at}, move=SENT_AGAIN)
    if image is not None:
        yield from note_event("swept_unheard", task.id)
        yield from publish([image])


def held_by_nodes() -> Flow[Collection[str]]:
    """Return the ids of tasks whose delivery some live node holds, by its last beat."""
    nodes = yield from find(NodeDocument, {"closed": False})
    return {task_id for node in nodes for task_id in node.holding}


class Grant(msgspec.Struct, frozen=True):
    """The latest published task of a queue that runs now. Whichever of its messages it was granted by, none was sent
    before `first_sent_at`."""

    first_sent_at: Micros
    priority: int


def latest_grants(queues: Collection[str]) -> Flow[dict[str, Grant]]:
    """Return the latest published of the tasks that run now, by queue: the newest that was granted, however long
    tasks wait there."""
    latest: dict[str, Grant] = {}
    for queue in queues:
        where = {"state": TaskState.RUNNING, "kind": TaskKind.CONTAINER, "queue": queue}
        running = yield from find(
            TaskDocument,
            where,
            order=("-published_at",),
            limit=1,
            without=TaskDocument.heavy,
        )
        for task in running:
            latest[queue] = Grant(task.evaluated_at or 0, task.priority)
    return latest


def composites_with_nothing_open(rounds: Rounds) -> Flow[list[Document]]:
    """Complete composites below which nothing is open; end those whose sub-job has ended."""
    at = yield from now()
    where = {
        "state": TaskState.RUNNING,
        "expanded": True,
        "kind": In((TaskKind.PARALLEL, TaskKind.EACH, TaskKind.SUBJOB)),
        "started_at": Below(at - UNCONFIRMED),
        **({"id": Above(rounds.composites)} if rounds.composites else {}),
    }
    found = yield from find(
        TaskDocument, where, order=("id",), limit=REPAIRS_AT_ONCE, without=TaskDocument.heavy
    )
    rounds.composites = found[-1].id if len(found) == REPAIRS_AT_ONCE else ""
    follow: list[Document] = []
    for task in found:
        if task.then:
            continue
        if task.kind == TaskKind.SUBJOB:
            over = yield from _sub_job_over(task)
        else:
            job = yield from recall(task.job_id)
            over = [] if job is None else (yield from composites.complete_if_done(task.id, job))
        for document in over:
            yield from note_event("swept_composite", document.id)
        follow += over
    return follow


def _sub_job_over(task: TaskDocument) -> Flow[list[Document]]:
    job = (yield from get(JobDocument, task.subjob_id)) if task.subjob_id else None
    if job is None or job.state not in JOB_ENDED or job.then:
        return []
    return (yield from tell_parent(job))


def free_slots(rounds: Rounds) -> Flow[list[Document]]:
    """Offer the free numbers of windows and `each`es that have tasks held."""
    window = (yield from bounds()).job_window
    follow: list[Document] = []
    owners, rounds.slots = yield from _owners("slot_of", Hold.CONCURRENCY, rounds.slots)
    for owner in owners:
        follow += yield from _offer_slots(owner)
    owners, rounds.windows = yield from _owners("window_of", Hold.WINDOW, rounds.windows)
    for owner in owners:
        follow += yield from slots.offer_window(owner, window)
    for document in follow:
        yield from note_event("swept_free_slot", document.id)
    return follow


def _offer_slots(owner: str) -> Flow[list[Document]]:
    parent = yield from get(TaskDocument, owner)
    if parent is None or not parent.active:
        return (yield from orphans.held_below(owner, parent))
    each = parent.definition.each
    if each is None or not parent.expanded:
        return []
    return (yield from slots.offer_slots(owner, each.concurrency or 0))


def _owners(field: str, hold: Hold, after: str) -> Flow[tuple[list[str], str]]:
    """Return the owners after `after` that have tasks held, and where the next look is to go on.

    Asked for one by one, each by a look into an index: one with very many held costs no more than another."""
    owners: list[str] = []
    while len(owners) < REPAIRS_AT_ONCE:
        where = {"hold": hold, field: Above(after)}
        held = yield from find(
            TaskDocument, where, order=(field,), limit=1, without=slots.SLOT_NUMBERS
        )
        if not held:
            return owners, ""
        after = getattr(held[0], field)
        owners.append(after)
    return owners, after


# --- a single process that starts again -----------------------------------------------------------------------------


def void_leases() -> Flow[list[Document]]:
    """Close the epoch of every node: this is the only process there is, so all others are gone."""
    follow: list[Document] = []
    for node in (yield from find(NodeDocument, {"closed": False})):
        follow += yield from beats.close_epoch(node)
    return follow


def send_all_again() -> Flow[list[Document]]:
    """Send again whatever waits in a queue: the queues went with the process that held them."""
    at = yield from now()
    full = True
    while full:
        waiting = yield from _sent_first(TaskState.SCHEDULED, {})
        for task in waiting:
            yield from change_task(task.id, {}, {"published_at": at}, move=SENT_AGAIN)
        full = len(waiting) == REPAIRS_AT_ONCE
    last, full = "", True
    while full:
        where = {"state": TaskState.PENDING, "id": Above(last)}
        waiting = yield from find(TaskDocument, where, order=("id",), limit=SENT_AT_ONCE)
        yield from publish(waiting)
        last, full = waiting[-1].id if waiting else "", len(waiting) == SENT_AT_ONCE
    return []
