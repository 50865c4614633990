"""The queues: their names, which ones a task may ask for, and how each is declared (engine spec, Queues)."""

from __future__ import annotations

import re
from typing import Final
from uuid import uuid4

import msgspec

JOBS_QUEUE: Final = "jobs"
CLAIMS_QUEUE: Final = "claims"
COMPLETED_QUEUE: Final = "completed"
ERROR_QUEUE: Final = "error"
LOGS_QUEUE: Final = "logs"
PROGRESS_QUEUE: Final = "progress"
HEARTBEAT_QUEUE: Final = "heartbeat"
DEAD_QUEUE: Final = "dead"

COORDINATOR_QUEUES: Final = frozenset(
    {
        JOBS_QUEUE,
        CLAIMS_QUEUE,
        COMPLETED_QUEUE,
        ERROR_QUEUE,
        LOGS_QUEUE,
        PROGRESS_QUEUE,
        HEARTBEAT_QUEUE,
        DEAD_QUEUE,
    }
)
"""What coordinators take from, and `dead`, which nobody takes from."""

TRANSIENT_QUEUES: Final = frozenset({CLAIMS_QUEUE, PROGRESS_QUEUE, HEARTBEAT_QUEUE})
"""Not persistent, not confirmed, dropped after 15 s: the next message says the same again."""

TRANSIENT_TTL: Final = 15.0
"""Seconds after which a message of a transient queue is dropped: the next one says it again."""

EVENTS: Final = "events"
"""The topic that events go through."""

RESERVED_QUEUES: Final = COORDINATOR_QUEUES | {EVENTS}
"""The names the engine keeps for itself: no task may ask for one."""

DEFAULT_QUEUE: Final = "default"
"""Where a task goes that names no queue."""

ALWAYS_THERE: Final = tuple(sorted(COORDINATOR_QUEUES | {DEFAULT_QUEUE}))
"""Queues that an adapter makes at its start, so that a quiet system shows them too."""

NODE_QUEUE_PREFIX: Final = "x-"
"""How the name of one worker's own queue begins."""

MAX_PRIORITY: Final = 9

_LONGEST: Final = 128
_LONGEST_BYTES: Final = 255  # AMQP's short string


_EVENTS_QUEUE: Final = re.compile(f"{EVENTS}-[0-9a-f]{{32}}")


def events_queue() -> str:
    """Return a new name for the queue in which a coordinator hears events."""
    return f"{EVENTS}-{uuid4().hex}"


def is_process_queue(name: str) -> bool:
    """Tell whether a queue is one process's own: a node's, or a coordinator's for events."""
    return name.startswith(NODE_QUEUE_PREFIX) or _EVENTS_QUEUE.fullmatch(name) is not None


def is_task_queue(name: str) -> bool:
    """Tell whether a queue is for tasks, and not the engine's own."""
    return name not in RESERVED_QUEUES and not is_process_queue(name)


def node_queue(node_id: str) -> str:
    """Return the name of a node's own queue."""
    return NODE_QUEUE_PREFIX + node_id


def queue_problem(name: str) -> str | None:
    """Return what makes a name unfit for a task queue, or None."""
    if not 1 <= len(name) <= _LONGEST or not name.isprintable():
        return f"the name of a queue must have 1 to {_LONGEST} printable characters"
    if len(name.encode("utf-8", "replace")) > _LONGEST_BYTES:
        return f"the name of a queue can have at most {_LONGEST_BYTES} bytes"
    if name.startswith(NODE_QUEUE_PREFIX):
        return f'names that begin with "{NODE_QUEUE_PREFIX}" are kept for the workers\' own queues'
    if not is_task_queue(name):
        return f'"{name}" is a queue of the engine\'s own'
    if name.startswith("amq."):
        return 'names that begin with "amq." are kept by the broker'
    return None


class QueueKind(msgspec.Struct, frozen=True):
    """How a queue is declared and published to."""

    persistent: bool
    """Messages survive the broker, and are confirmed and mandatory."""
    prioritised: bool
    message_ttl: float | None
    """Seconds."""
    expires: float | None
    """Seconds without a consumer after which the queue itself goes; None: never."""
    creatable: bool
    """Whether publishing to it may create it."""


def queue_kind(queue: str, *, node_expiry: float) -> QueueKind:
    """Return what `queue` is. `node_expiry`: seconds that a node's own queue outlives its node (>
    lease + 10 s)."""
    if queue in TRANSIENT_QUEUES:
        return QueueKind(False, False, TRANSIENT_TTL, None, True)
    if queue in COORDINATOR_QUEUES:
        return QueueKind(True, False, None, None, True)
    if queue.startswith(NODE_QUEUE_PREFIX):
        return QueueKind(False, False, None, node_expiry, False)
    return QueueKind(True, True, None, None, True)
