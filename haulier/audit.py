"""The audit: finds what is stuck, left over or done twice in a datastore, a broker and a Docker engine.

It only reads. What is under way is left alone: a thing counts once it is older than the time within
which the engine repairs by itself (the engine spec, promise 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import msgspec

from coordinator.store.port import Above, Below, In, Store
from shared.broker.port import QueueInfo
from shared.model.documents import (
    MICROS_PER_SECOND,
    DeliveryDocument,
    Document,
    JobDocument,
    Micros,
    NodeDocument,
    TaskDocument,
)
from shared.model.queues import DEAD_QUEUE, DEFAULT_QUEUE, NODE_QUEUE_PREFIX, is_task_queue
from shared.model.states import (
    GOOD,
    JOB_ACTIVE,
    TASK_ACTIVE,
    DeliveryState,
    JobState,
    TaskKind,
    TaskState,
)

_PATIENCE = 90.0
"""Seconds within which everything is put right by itself."""

_LIMIT = 10_000
"""Documents of a kind that one audit looks at."""

LIGHT = ("definition", "evaluated", "scope", "result")
"""Fields of a task that no question here needs."""

COMPOSITES = In((TaskKind.PARALLEL, TaskKind.EACH, TaskKind.SUBJOB))


class Finding(msgspec.Struct, frozen=True, order=True):
    """A problem that the audit found: what is wrong, and with which document, queue or node."""

    what: str
    subject: str
    detail: str = ""


async def audit_store(store: Store, patience: float = _PATIENCE) -> list[Finding]:
    """Return what is wrong in a datastore for longer than `patience` seconds."""
    before = store.now() - round(patience * MICROS_PER_SECOND)
    found: list[Finding] = []
    for look in (
        _intents,
        _stuck_jobs,
        _waiting,
        _running,
        _composites,
        _closed,
        _twice,
        _webhooks,
    ):
        found += await look(store, before)
    return sorted(set(found))


async def _intents(store: Store, before: Micros) -> list[Finding]:
    documents: list[Document] = []
    for kind in (JobDocument, TaskDocument):
        documents += await store.overdue(kind, before, _LIMIT)
    return [
        Finding("intent overdue", document.id, ", ".join(what.do for what in document.then))
        for document in documents
    ]


async def _stuck_jobs(store: Store, before: Micros) -> list[Finding]:
    """Jobs that go on, though nothing is open in them that anything could follow from."""
    where = {"state": In(tuple(JOB_ACTIVE)), "created_at": Below(before)}
    found = []
    for job in await store.find(JobDocument, where, limit=_LIMIT, without=("definition", "result")):
        if job.then or await _has_open(store, {"job_id": job.id}):
            continue
        again = await store.get(JobDocument, job.id)
        late = [] if again is None else await _ended_since(store, job.id, before)
        if again is not None and again.state == job.state and not again.then and not late:
            found.append(Finding("job stuck", job.id, f"{job.state}, with nothing open"))
    return found


async def _has_open(store: Store, where: dict[str, object]) -> bool:
    return bool(await store.find(TaskDocument, {**where, "open": True}, limit=1, without=LIGHT))


async def _ended_since(store: Store, job_id: str, before: Micros) -> list[TaskDocument]:
    where = {"job_id": job_id, "ended_at": Above(before)}
    return await store.find(TaskDocument, where, limit=1, without=LIGHT)


async def _waiting(store: Store, before: Micros) -> list[Finding]:
    """Tasks that should have been sent to their queue long ago."""
    where = {"state": TaskState.PENDING, "published_at": Below(before)}
    tasks = await store.find(TaskDocument, where, limit=_LIMIT, without=LIGHT)
    return [Finding("task not sent", task.id, f"of job {task.job_id}") for task in tasks]


async def _running(store: Store, before: Micros) -> list[Finding]:
    """Return the runs on nodes that are gone."""
    where = {"state": TaskState.RUNNING, "kind": TaskKind.CONTAINER}
    tasks = await store.find(TaskDocument, where, limit=_LIMIT, without=LIGHT)
    nodes = {node.id: node for node in await _nodes_of(store, tasks)}
    found = []
    for task in tasks:
        node = nodes.get(task.node_id or "")
        if node is None or node.closed or node.lease_until < before:
            found.append(Finding("run of a dead node", task.id, f"on node {task.node_id}"))
    return found


async def _nodes_of(store: Store, tasks: Iterable[TaskDocument]) -> list[NodeDocument]:
    return await store.get_many(
        NodeDocument, sorted({task.node_id for task in tasks if task.node_id})
    )


async def _composites(store: Store, before: Micros) -> list[Finding]:
    """Composites that are fully expanded, with nothing open below them."""
    where = {
        "state": TaskState.RUNNING,
        "kind": COMPOSITES,
        "expanded": True,
        "started_at": Below(before),
    }
    found = []
    for task in await store.find(TaskDocument, where, limit=_LIMIT, without=LIGHT):
        if task.then or await _below_is_open(store, task):
            continue
        again = await store.get(TaskDocument, task.id)
        if again is not None and again.state == TaskState.RUNNING and not again.then:
            found.append(Finding("composite stuck", task.id, f"of job {task.job_id}"))
    return found


async def _below_is_open(store: Store, task: TaskDocument) -> bool:
    if task.kind != TaskKind.SUBJOB:
        return await _has_open(store, {"parent_id": task.id})
    job = await store.get(JobDocument, task.subjob_id) if task.subjob_id else None
    return job is None or job.state in JOB_ACTIVE or bool(job.then)


async def _closed(store: Store, before: Micros) -> list[Finding]:
    """Tasks that are active below a job that has ended."""
    where = {"state": In(tuple(TASK_ACTIVE))}
    tasks = await store.find(TaskDocument, where, limit=_LIMIT, without=LIGHT)
    jobs = await store.get_many(JobDocument, sorted({task.job_id for task in tasks}))
    ended = {job.id for job in jobs if job.ended_at is not None and job.ended_at < before}
    known = {job.id for job in jobs}
    return [
        Finding("open task in an ended job", task.id, f"{task.state}, job {task.job_id}")
        for task in tasks
        if task.job_id in ended or task.job_id not in known
    ]


async def _twice(store: Store, before: Micros) -> list[Finding]:
    """Return what an end that was applied twice would leave: steps, attempts or positions too many."""
    where = {"ended_at": Above(0), "state": JobState.COMPLETED}
    jobs = await store.find(
        JobDocument, where, ("-ended_at",), limit=1_000, without=("definition", "result")
    )
    found = []
    for job in jobs:
        if job.ended_at is None or job.ended_at > before:
            continue
        tasks = await store.find(TaskDocument, {"job_id": job.id}, without=LIGHT)
        found += _counted(job, tasks)
    return found


def _counted(job: JobDocument, tasks: Sequence[TaskDocument]) -> list[Finding]:
    attempts = Counter((task.path, task.restarts, task.attempt) for task in tasks)
    good = Counter((task.path, task.restarts) for task in tasks if task.state in GOOD)
    found = [
        Finding("applied twice", job.id, f"task {path} has attempt {attempt} {count} times")
        for (path, _, attempt), count in attempts.items()
        if count > 1
    ]
    found += [
        Finding("applied twice", job.id, f"task {path} completed {count} times")
        for (path, _), count in good.items()
        if count > 1
    ]
    if job.position != job.task_count + 1:
        detail = f"position {job.position} of a completed job of {job.task_count} tasks"
        found.append(Finding("applied twice", job.id, detail))
    return found


async def _webhooks(store: Store, before: Micros) -> list[Finding]:
    where = {"state": DeliveryState.PENDING, "due_at": Below(before)}
    due = await store.find(DeliveryDocument, where, ("due_at",), limit=_LIMIT)
    return [
        Finding("webhook overdue", delivery.id, f"of job {delivery.job_id}") for delivery in due
    ]


# --- the broker ---------------------------------------------------------------------------------


async def audit_queues(
    store: Store, queues: Sequence[QueueInfo], patience: float = _PATIENCE
) -> list[Finding]:
    """Return what is wrong with the broker's queues, and with tasks that should be in them."""
    before = store.now() - round(patience * MICROS_PER_SECOND)
    found = await _unheard(store, queues, before)
    owners = await dead_of(store, [_owner(queue) for queue in queues if _owner(queue)], before)
    for queue in queues:
        if _owner(queue) in owners:
            found.append(Finding("queue of a dead node", queue.name, "its node is gone"))
        elif queue.name == DEAD_QUEUE and queue.size:
            found.append(Finding("unprocessable message", DEAD_QUEUE, f"{queue.size} in the queue"))
        elif queue.size and not queue.subscribers and is_task_queue(queue.name):
            found.append(
                Finding("queue without workers", queue.name, f"{queue.size} tasks waiting")
            )
    return sorted(found)


def _owner(queue: QueueInfo) -> str:
    if not queue.name.startswith(NODE_QUEUE_PREFIX):
        return ""
    return queue.name.removeprefix(NODE_QUEUE_PREFIX)


async def _unheard(store: Store, queues: Sequence[QueueInfo], before: Micros) -> list[Finding]:
    """Tasks that were sent, and are neither in their queue nor with a node."""
    busy = {queue.name for queue in queues if queue.size or queue.unacked}
    where = {"state": TaskState.SCHEDULED, "published_at": Below(before)}
    tasks = await store.find(TaskDocument, where, limit=_LIMIT, without=LIGHT)
    return [
        Finding("task message lost", task.id, f"queue {task.queue or DEFAULT_QUEUE}")
        for task in tasks
        if (task.queue or DEFAULT_QUEUE) not in busy
    ]


async def dead_of(store: Store, nodes: Collection[str], before: Micros) -> set[str]:
    """Return those of `nodes` that are dead since before then. Strangers are somebody else's."""
    known = await store.get_many(NodeDocument, sorted(set(nodes)))
    return {node.id for node in known if node.closed and node.lease_until < before}


# --- the engine ---------------------------------------------------------------------------------


async def audit_engine(
    store: Store, things: Sequence[tuple[str, str]], patience: float = _PATIENCE
) -> list[Finding]:
    """Return which of an engine's things (name and node) belong to nobody any more."""
    before = store.now() - round(patience * MICROS_PER_SECOND)
    dead = await dead_of(store, [node for _, node in things], before)
    return sorted(
        Finding("left by a dead node", name, f"node {node}")
        for name, node in things
        if node in dead
    )
