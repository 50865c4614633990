"""The table of allowed state changes. Every change of a job's or task's state is a move, checked against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NewType, TypedDict, TypeVar, Unpack

import msgspec

from shared.model.documents import LostRunEntry, Micros, RunUsage, TaskDocument, TaskReference
from shared.model.language import TaskDefinition
from shared.model.queries import In
from shared.model.states import GOOD, Hold, JobState, TaskState

JOB_MAY: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.SCHEDULED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SCHEDULED: frozenset(
        {JobState.RUNNING, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.FAILED: frozenset({JobState.RUNNING}),
    JobState.CANCELLED: frozenset({JobState.RUNNING}),
    JobState.COMPLETED: frozenset(),
}

WAITING = (TaskState.PENDING, TaskState.SCHEDULED)
"""States from which a task may be granted."""

MAY_END = (TaskState.RUNNING, *WAITING)
"""States in which the end of a task's last run counts: RUNNING, or lost by lease and not yet granted again."""

_ENDS_OF_A_RUN = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})
_TURNED = {TaskState.PENDING, TaskState.RUNNING, TaskState.SKIPPED}

TASK_MAY: dict[TaskState, frozenset[TaskState]] = {
    TaskState.CREATED: frozenset(_TURNED | {TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.PENDING: _ENDS_OF_A_RUN | {TaskState.SCHEDULED, TaskState.RUNNING},
    TaskState.SCHEDULED: _ENDS_OF_A_RUN | {TaskState.PENDING, TaskState.RUNNING},
    TaskState.RUNNING: _ENDS_OF_A_RUN | {TaskState.PENDING},
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
    TaskState.SKIPPED: frozenset(),
}

_S = TypeVar("_S", JobState, TaskState)


class Move(msgspec.Struct, Generic[_S], frozen=True):
    """A change of state, from any of `sources` to `to`; with `stays`, what is `to` already is meant too.

    Raises `ValueError` where the table does not let one of `sources` become `to`.
    """

    table: ClassVar[Mapping[Any, frozenset[Any]]] = {}

    sources: tuple[_S, ...]
    to: _S
    stays: bool = False

    def __post_init__(self) -> None:
        for source in self.sources:
            if self.to not in self.table.get(source, ()):
                raise ValueError(f"{source} may not become {self.to}")

    def where(self) -> In:
        """Return the matcher of the states that it is a move from."""
        return In((*self.sources, self.to) if self.stays else self.sources)


class JobMove(Move[JobState], frozen=True):
    """A change of a job's state."""

    table = JOB_MAY


class TaskMove(Move[TaskState], frozen=True):
    """A change of a task's state."""

    table = TASK_MAY


KeptError = NewType("KeptError", str)
"""An error as it may rest in the store: only `evaluation.kept_error` makes it."""


class JobFields(TypedDict, total=False):
    """What a change of a job may set. Its state is not among it: that takes a `JobMove`."""

    position: int
    restarts: int
    progress: float
    started_at: Micros | None
    completed_at: Micros | None
    failed_at: Micros | None
    ended_at: Micros | None
    delete_at: Micros | None
    deleted_at: Micros | None
    restarted_from: int | None
    result: str | None
    error: KeptError | None
    failed_task: TaskReference | None


class TaskFields(TypedDict, total=False):
    """What a change of a task may set. Its state is not among it: that takes a `TaskMove`."""

    name: str
    open: bool
    active: bool
    hold: Hold | None
    lost: int
    lost_by: str | None
    runs: list[LostRunEntry]
    node_id: str | None
    epoch: int | None
    nonce: str | None
    claim_beat: int
    run: int
    evaluated: TaskDefinition | None
    evaluated_at: Micros | None
    queue: str | None
    priority: int
    var: str | None
    slot: int | None
    window: int | None
    size: int | None
    list_digest: str | None
    expanded: bool
    expanded_to: int
    subjob_id: str | None
    published_at: Micros | None
    scheduled_at: Micros | None
    started_at: Micros | None
    completed_at: Micros | None
    failed_at: Micros | None
    ended_at: Micros | None
    progress: float
    result: str | None
    error: KeptError | None
    failed_task: TaskReference | None
    exit_code: int | None
    usage: RunUsage | None
    log_parts: int | None


def any_state(states: frozenset[_S]) -> In:
    """Return the matcher of these states."""
    return In(tuple(sorted(states)))


def with_state(task: TaskDocument, to: TaskState, **fields: Unpack[TaskFields]) -> TaskDocument:
    """Return a task moved to `to`, with these fields; `ValueError` where the table does not let it."""
    move = TaskMove((task.state,), to)
    return msgspec.structs.replace(task, state=move.to, **fields)


def task_end(state: TaskState, at: Micros, **more: Unpack[TaskFields]) -> TaskFields:
    """Return the fields, besides its state, of a task that ends as `state`."""
    ended: TaskFields = {"active": False, "hold": None, "ended_at": at, **more}
    if state in GOOD:
        return {**ended, "completed_at": at}
    return {**ended, "failed_at": at}


def job_end(state: JobState, at: Micros, **more: Unpack[JobFields]) -> JobFields:
    """Return the fields, besides its state, of a job that ends as `state`."""
    if state == JobState.COMPLETED:
        return {"ended_at": at, "completed_at": at, **more}
    return {"ended_at": at, "failed_at": at, **more}
