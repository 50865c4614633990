"""The words of fixed sets in documents and messages: states, kinds, roles. On the wire and at rest they are text."""

from __future__ import annotations

import enum
from typing import Self


class Word(enum.StrEnum):
    """One of a set of words. One that only a newer version knows is kept as it is, so that versions can mix."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = value
        return unknown


class JobState(Word):
    """Where a job stands. What may follow on what: `coordinator.engine.transitions`."""

    PENDING = "PENDING"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TaskState(Word):
    """Where a task stands. What may follow on what: `coordinator.engine.transitions`."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"


JOB_ENDED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
JOB_ACTIVE = frozenset(JobState) - JOB_ENDED
TASK_ENDED = frozenset(
    {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED}
)
TASK_ACTIVE = frozenset(TaskState) - TASK_ENDED
GOOD = frozenset({TaskState.COMPLETED, TaskState.SKIPPED})
"""How a task ends that lets its job go on."""


class TaskKind(Word):
    """What a task is: a container to run, or a composite of others."""

    CONTAINER = "container"
    PARALLEL = "parallel"
    EACH = "each"
    SUBJOB = "subjob"


class Hold(Word):
    """What a held task waits for: the end of its delay, a slot of its `each`, a number of its window."""

    DELAY = "delay"
    CONCURRENCY = "concurrency"
    WINDOW = "window"


class RunRole(Word):
    """How a worker holds a run: claimed and unanswered, running, or over and not told stored."""

    ASKED = "asked"
    RUNNING = "running"
    ENDED = "ended"


class NodeKind(Word):
    """Which of our processes a node is."""

    COORDINATOR = "coordinator"
    WORKER = "worker"


class NodeStatus(Word):
    """What a node says of itself in its beats."""

    UP = "UP"
    DOWN = "DOWN"


class ScheduleState(Word):
    """Whether a schedule fires."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


class DeliveryState(Word):
    """Where a webhook's delivery stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
