"""The states of jobs and tasks, and the table of allowed transitions that every change is checked against."""

from __future__ import annotations

from typing import Any

from shared.model.documents import Micros
from shared.model.queries import In

# Jobs
PENDING = "PENDING"
SCHEDULED = "SCHEDULED"
RUNNING = "RUNNING"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
# Tasks, besides
CREATED = "CREATED"
SKIPPED = "SKIPPED"

JOB_MAY: dict[str, frozenset[str]] = {
    PENDING: frozenset({SCHEDULED, FAILED, CANCELLED}),
    SCHEDULED: frozenset({RUNNING, COMPLETED, FAILED, CANCELLED}),
    RUNNING: frozenset({COMPLETED, FAILED, CANCELLED}),
    FAILED: frozenset({RUNNING}),
    CANCELLED: frozenset({RUNNING}),
    COMPLETED: frozenset(),
}

TASK_MAY: dict[str, frozenset[str]] = {
    CREATED: frozenset({PENDING, RUNNING, SKIPPED, FAILED, CANCELLED}),
    PENDING: frozenset({SCHEDULED, RUNNING, CANCELLED, COMPLETED, FAILED}),
    SCHEDULED: frozenset({PENDING, RUNNING, CANCELLED, COMPLETED, FAILED}),
    RUNNING: frozenset({COMPLETED, FAILED, CANCELLED, PENDING}),
    COMPLETED: frozenset(),
    FAILED: frozenset(),
    CANCELLED: frozenset(),
    SKIPPED: frozenset(),
}

JOB_ENDED = frozenset({COMPLETED, FAILED, CANCELLED})
JOB_ACTIVE = frozenset(JOB_MAY) - JOB_ENDED
TASK_ENDED = frozenset({COMPLETED, FAILED, CANCELLED, SKIPPED})
TASK_ACTIVE = frozenset(TASK_MAY) - TASK_ENDED
GOOD = frozenset({COMPLETED, SKIPPED})


def _sources(table: dict[str, frozenset[str]], state: str) -> frozenset[str]:
    """Return the states from which `state` may be reached."""
    return frozenset(source for source, targets in table.items() if state in targets)


def any_state(states: frozenset[str]) -> In:
    """Return the matcher of these states."""
    return In(tuple(sorted(states)))


JOB_FROM = {state: any_state(_sources(JOB_MAY, state)) for state in JOB_MAY}
TASK_FROM = {state: any_state(_sources(TASK_MAY, state)) for state in TASK_MAY}


def task_end(state: str, at: Micros, **more: Any) -> dict[str, Any]:
    """Return the fields of a task that ends as `state`."""
    stamp = "completed_at" if state in GOOD else "failed_at"
    return {"state": state, "active": False, "hold": None, "ended_at": at, stamp: at, **more}


def job_end(state: str, at: Micros, **more: Any) -> dict[str, Any]:
    """Return the fields of a job that ends as `state`."""
    stamp = "completed_at" if state == COMPLETED else "failed_at"
    return {"state": state, "ended_at": at, stamp: at, **more}
