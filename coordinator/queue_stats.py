"""The figures of queues: which there are is known from what is stored, and the broker is asked how full they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from coordinator.engine import slots
from coordinator.store.port import Store
from shared.broker.port import Broker, QueueInfo
from shared.model.documents import NodeDocument, QueueDocument, TaskDocument
from shared.model.queries import In
from shared.model.queues import (
    DEFAULT_QUEUE,
    NODE_QUEUE_PREFIX,
    RESERVED_QUEUES,
    node_queue,
)
from shared.model.states import NodeKind, TaskState

MOST_ASKED = 1_000
"""Task queues that are asked about at once, the latest used first: each may cost a question to the broker."""


async def all_queues(store: Store, broker: Broker) -> list[QueueInfo]:
    """Return the figures of all queues, by name. Raises `StoreUnavailable`, `BrokerUnavailable`."""
    used = await store.find(QueueDocument, {}, ("-used_at",), limit=MOST_ASKED)
    workers = await _workers(store)
    names = {queue.id for queue in used}
    for node in workers:
        names |= {node_queue(node.id), *node.queues}
    return await _with_held(store, workers, await broker.queues(names))


async def one_queue(store: Store, broker: Broker, name: str) -> QueueInfo | None:
    """Return the figures of a queue; None where there is none. Raises as `all_queues`."""
    workers = await _workers(store)
    found = await broker.queue(name)
    return None if found is None else (await _with_held(store, workers, [found]))[0]


async def waiting_in(store: Store, queue: str) -> int:
    """Return how many tasks were sent to a queue, or are about to be, and have not begun."""
    scheduled = await store.count(TaskDocument, {"queue": queue, "state": TaskState.SCHEDULED})
    return scheduled + await store.count(TaskDocument, {"queue": queue, "state": TaskState.PENDING})


async def _workers(store: Store) -> list[NodeDocument]:
    return await store.find(NodeDocument, {"closed": False, "kind": NodeKind.WORKER})


async def _with_held(
    store: Store, workers: Sequence[NodeDocument], queues: Sequence[QueueInfo]
) -> list[QueueInfo]:
    """Where the broker can't tell what is on loan from a task queue, count what the last beats hold."""
    if all(queue.unacked is not None for queue in queues):
        return list(queues)
    ids = tuple(task_id for node in workers for task_id in node.holding)
    tasks = await store.find(TaskDocument, {"id": In(ids)}, without=slots.HEAVY)
    held = Counter(task.queue or DEFAULT_QUEUE for task in tasks)
    return [
        msgspec.structs.replace(queue, unacked=held[queue.name])
        if queue.unacked is None and _is_for_tasks(queue.name)
        else queue
        for queue in queues
    ]


def _is_for_tasks(name: str) -> bool:
    return name not in RESERVED_QUEUES and not name.startswith((NODE_QUEUE_PREFIX, "events-"))
