"""What each queue is, from its name alone (engine spec, Queues)."""

from __future__ import annotations

import msgspec

from shared.model.messages import COORDINATOR_QUEUES, TRANSIENT_QUEUES
from shared.model.queues import DEFAULT_QUEUE

TRANSIENT_TTL = 15.0
"""Seconds after which a message of a transient queue is dropped: the next one says it again."""

MAX_PRIORITY = 9

EVENTS = "events"
"""The topic that events go through."""

ALWAYS_THERE = tuple(sorted(COORDINATOR_QUEUES | {DEFAULT_QUEUE}))
"""Queues that an adapter makes at its start, so that a quiet system shows them too."""


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


def kind_of(queue: str, *, node_expiry: float) -> QueueKind:
    """Return what `queue` is. `node_expiry`: seconds that a node's own queue outlives its node (>
    lease + 10 s)."""
    if queue in TRANSIENT_QUEUES:
        return QueueKind(False, False, TRANSIENT_TTL, None, True)
    if queue in COORDINATOR_QUEUES:
        return QueueKind(True, False, None, None, True)
    if queue.startswith("x-"):
        return QueueKind(False, False, None, node_expiry, False)
    return QueueKind(True, True, None, None, True)
