"""Names of queues (the engine spec, Queues)."""

from typing import Final

DEFAULT_QUEUE: Final = "default"
"""Where a task goes that names no queue."""

COORDINATOR_QUEUES: Final = frozenset(
    {"jobs", "claims", "completed", "error", "logs", "progress", "heartbeat", "dead", "events"}
)
"""The names the engine keeps for itself: no task may ask for one."""

NODE_QUEUE_PREFIX: Final = "x-"
"""How the name of one worker's own queue begins."""

_LONGEST: Final = 128
_LONGEST_BYTES: Final = 255  # AMQP's short string


def queue_fault(name: str) -> str | None:
    """What makes a name unfit for a task queue, or None."""
    if not 1 <= len(name) <= _LONGEST or not name.isprintable():
        return f"a queue's name has 1 to {_LONGEST} printable characters"
    if len(name.encode("utf-8", "replace")) > _LONGEST_BYTES:
        return f"a queue's name takes at most {_LONGEST_BYTES} bytes"
    if name in COORDINATOR_QUEUES:
        return f'"{name}" is a queue of the engine\'s own'
    if name.startswith(NODE_QUEUE_PREFIX):
        return f'names that begin with "{NODE_QUEUE_PREFIX}" are kept for the workers\' own queues'
    if name.startswith("amq."):
        return 'names that begin with "amq." are kept by the broker'
    return None
