"""The figures of queues: which there are is known from what is stored, and the broker is asked how full they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from coordinator.store.port import Store
from shared.broker.port import Broker, QueueInfo
from shared.model.documents import NodeDocument, QueueDocument, TaskDocument
from shared.model.queries import In
from shared.model.queues import (
    DEFAULT_QUEUE,
    is_task_queue,
    node_queue,
)
from shared.model.states import NodeKind, TaskState

MOST_ASKED = 1_000
"""Task queues that are asked about at once, the latest used first: each may cost a question to the broker."""


async def all_queues(store: Store, broker: Broker) -> list[QueueInfo]:
    """Return the figures of all queues, by name. Raises `StoreUnavailable`, `BrokerUnavailable`."""
    used = await store.find(QueueDocument, {}, ("-used_at",), limit=MOST_ASKED)
    workers = await workers_known(store)
    names = {queue.id for queue in used}
    for node in workers:
        names |= {node_queue(node.id), *node.queues}
    return await _with_held(store, workers, await broker.queues(names))


async def one_queue(
    store: Store, broker: Broker, name: str, workers: Sequence[NodeDocument] | None = None
) -> QueueInfo | None:
    """Return the figures of a queue; None where there is none. `workers`: those known, where they were read already.
    Raises as `all_queues`."""
    found = await broker.queue(name)
    if found is None:
        return None
    known = await workers_known(store) if workers is None else workers
    return (await _with_held(store, known, [found]))[0]


async def waiting_in(store: Store, queue: str) -> int:
    """Return how many tasks were sent to a queue, or are about to be, and have not begun."""
    scheduled = await store.count(TaskDocument, {"queue": queue, "state": TaskState.SCHEDULED})
    return scheduled + await store.count(TaskDocument, {"queue": queue, "state": TaskState.PENDING})


class QueueDemand(msgspec.Struct, frozen=True):
    """What an autoscaler asks of a task queue, in slots: `busy` run a task, `ready` tasks wait for one, and `desired`,
    the sum, would keep none waiting."""

    desired: int
    busy: int
    ready: int


async def queue_scale(store: Store, broker: Broker, name: str) -> QueueDemand | None:
    """Return how many slots a task queue has use for, by what is stored: whatever the broker has lost is counted. None
    where there is no such task queue. Raises as `all_queues`."""
    if not is_task_queue(name):
        return None
    busy = await store.count(TaskDocument, {"queue": name, "state": TaskState.RUNNING})
    ready = await waiting_in(store, name)
    if busy + ready == 0 and not await _exists(store, broker, name):
        return None
    return QueueDemand(busy + ready, busy, ready)


async def _exists(store: Store, broker: Broker, name: str) -> bool:
    if name == DEFAULT_QUEUE or await store.get(QueueDocument, name) is not None:
        return True
    if any(name in node.queues for node in await workers_known(store)):
        return True
    return await broker.queue(name) is not None


async def workers_known(store: Store) -> list[NodeDocument]:
    """Return the workers that are not closed. Raises `StoreUnavailable`."""
    return await store.find(NodeDocument, {"closed": False, "kind": NodeKind.WORKER})


async def _with_held(
    store: Store, workers: Sequence[NodeDocument], queues: Sequence[QueueInfo]
) -> list[QueueInfo]:
    """Where the broker can't tell what is on loan from a task queue, count what the last beats hold."""
    if all(queue.unacked is not None for queue in queues):
        return list(queues)
    ids = tuple(task_id for node in workers for task_id in node.holding)
    tasks = await store.find(TaskDocument, {"id": In(ids)}, without=TaskDocument.heavy)
    held = Counter(task.queue or DEFAULT_QUEUE for task in tasks)
    return [
        msgspec.structs.replace(queue, unacked=held[queue.name])
        if queue.unacked is None and is_task_queue(queue.name)
        else queue
        for queue in queues
    ]
