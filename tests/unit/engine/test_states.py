"""The table of states says what the engine spec says."""

from __future__ import annotations

from coordinator.engine import states
from tests.unit.engine.audit import JOB_MAY_BECOME, MAY_BECOME

SPEC_TASKS = {
    "CREATED": {"PENDING", "SKIPPED", "FAILED", "CANCELLED", "RUNNING"},
    "PENDING": {"SCHEDULED", "RUNNING", "CANCELLED", "COMPLETED", "FAILED"},
    "SCHEDULED": {"RUNNING", "CANCELLED", "COMPLETED", "FAILED", "PENDING"},
    "RUNNING": {"COMPLETED", "FAILED", "CANCELLED", "PENDING"},
}


def test_tasks_become_what_the_spec_lets_them() -> None:
    table = {state: set(targets) for state, targets in states.TASK_MAY.items() if targets}
    assert table == SPEC_TASKS == MAY_BECOME


def test_jobs_become_what_the_spec_lets_them() -> None:
    table = {state: set(targets) for state, targets in states.JOB_MAY.items() if targets}
    assert table == JOB_MAY_BECOME


def test_what_has_ended_stays_so() -> None:
    assert all(not states.TASK_MAY[state] for state in states.TASK_ENDED)
    assert {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"} == states.TASK_ENDED
    assert {"COMPLETED", "FAILED", "CANCELLED"} == states.JOB_ENDED
    assert not states.JOB_MAY["COMPLETED"]


def test_an_end_is_stamped_by_its_kind() -> None:
    assert states.task_end("SKIPPED", 5)["completed_at"] == 5
    assert states.task_end("CANCELLED", 5)["failed_at"] == 5
    assert states.job_end("COMPLETED", 5)["completed_at"] == 5
    assert states.job_end("FAILED", 5) == {"state": "FAILED", "ended_at": 5, "failed_at": 5}
