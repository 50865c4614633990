"""The table of states says what the engine spec says, and no state is written that it does not allow."""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mypy import api

from coordinator.engine import transitions
from coordinator.engine.flow import job_change, task_change
from coordinator.engine.transitions import JobMove, TaskMove
from shared.model.documents import Document, JobDocument, TaskDocument
from shared.model.queries import In
from shared.model.states import JOB_ENDED, TASK_ENDED, JobState, TaskKind, TaskState
from tests.unit.engine.audit import JOB_MAY_BECOME, MAY_BECOME

ROOT = Path(__file__).parents[3]

SPEC_TASKS = {
    "CREATED": {"PENDING", "SKIPPED", "FAILED", "CANCELLED", "RUNNING"},
    "PENDING": {"SCHEDULED", "RUNNING", "CANCELLED", "COMPLETED", "FAILED"},
    "SCHEDULED": {"RUNNING", "CANCELLED", "COMPLETED", "FAILED", "PENDING"},
    "RUNNING": {"COMPLETED", "FAILED", "CANCELLED", "PENDING"},
}


def test_tasks_become_what_the_spec_lets_them() -> None:
    table = {state: set(targets) for state, targets in transitions.TASK_MAY.items() if targets}
    assert table == SPEC_TASKS == MAY_BECOME
    assert set(transitions.TASK_MAY) == set(TaskState)


def test_jobs_become_what_the_spec_lets_them() -> None:
    table = {state: set(targets) for state, targets in transitions.JOB_MAY.items() if targets}
    assert table == JOB_MAY_BECOME
    assert set(transitions.JOB_MAY) == set(JobState)


def test_what_has_ended_stays_so() -> None:
    assert all(not transitions.TASK_MAY[state] for state in TASK_ENDED)
    assert {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"} == TASK_ENDED
    assert {"COMPLETED", "FAILED", "CANCELLED"} == JOB_ENDED
    assert not transitions.JOB_MAY[JobState.COMPLETED]


def test_an_end_is_stamped_by_its_kind() -> None:
    assert transitions.task_end(TaskState.SKIPPED, 5)["completed_at"] == 5
    assert transitions.task_end(TaskState.CANCELLED, 5)["failed_at"] == 5
    assert transitions.job_end(JobState.COMPLETED, 5)["completed_at"] == 5
    assert transitions.job_end(JobState.FAILED, 5) == {"ended_at": 5, "failed_at": 5}


@pytest.mark.parametrize("source", TaskState)
@pytest.mark.parametrize("to", TaskState)
def test_a_task_moves_as_the_table_says_and_not_otherwise(source: TaskState, to: TaskState) -> None:
    task = TaskDocument(
        id="t", job_id="j", root_id="j", path="1", position=1, kind=TaskKind.CONTAINER, name="", state=source
    )  # fmt: skip
    if to in SPEC_TASKS.get(source, ()):
        change = task_change("t", {"run": 1}, {"run": 2}, move=TaskMove((source,), to))
        assert (change.where, change.set) == (
            {"run": 1, "state": In((source,))},
            {"run": 2, "state": to},
        )
        assert transitions.with_state(task, to).state == to
    else:
        with pytest.raises(ValueError, match=f"{source} may not become {to}"):
            TaskMove((source,), to)
        with pytest.raises(ValueError, match=f"{source} may not become {to}"):
            transitions.with_state(task, to)


@pytest.mark.parametrize("source", JobState)
@pytest.mark.parametrize("to", JobState)
def test_a_job_moves_as_the_table_says_and_not_otherwise(source: JobState, to: JobState) -> None:
    if to in JOB_MAY_BECOME.get(source, ()):
        assert job_change("j", {}, {}, move=JobMove((source,), to)).set == {"state": to}
    else:
        with pytest.raises(ValueError, match=f"{source} may not become {to}"):
            JobMove((source,), to)


def test_a_move_is_refused_for_one_bad_source_among_good_ones() -> None:
    with pytest.raises(ValueError, match="FAILED may not become RUNNING"):
        TaskMove((TaskState.PENDING, TaskState.FAILED), TaskState.RUNNING)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [(transitions.JobFields, JobDocument), (transitions.TaskFields, TaskDocument)],
)
def test_the_fields_of_a_change_are_those_of_the_document_but_for_its_state(
    fields: Any, kind: type[Document]
) -> None:
    offered, there = typing.get_type_hints(fields), typing.get_type_hints(kind)
    there["error"] = transitions.KeptError | None
    assert offered == {name: there[name] for name in offered}
    assert "state" in there.keys() - offered.keys()


UNTYPED = {
    'change_task("t", {}, {"error": "not kept"})': "typeddict-item",
    'change_task("t", {}, {"state": TaskState.RUNNING})': "typeddict-unknown-key",
    'change_job("j", {}, {"state": JobState.RUNNING})': "typeddict-unknown-key",
    'change_first_task({}, (), {"state": TaskState.RUNNING})': "typeddict-unknown-key",
    'change_job("j", {}, {}, move=TaskMove((TaskState.CREATED,), TaskState.PENDING))': "arg-type",
    'change_task("t", {}, {}, move=TaskState.RUNNING)': "arg-type",
    "TaskMove((JobState.PENDING,), TaskState.RUNNING)": "arg-type",
    'change(TaskDocument, "t", {}, {"state": TaskState.RUNNING})': "type-var",
    'later(Change(kind=TaskDocument, id="t", set={"state": TaskState.RUNNING}))': "arg-type",
    'transitions.with_state(task, TaskState.RUNNING, state="X")': "call-arg",
    'steps.append(Change(kind=TaskDocument, id="t", set={"state": "X"}))': "arg-type",
}
"""Ways around the table, and the error that mypy refuses each for."""


def test_mypy_refuses_every_way_around_the_table(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    head = (
        "from coordinator.engine import transitions\n"
        "from coordinator.engine.flow import *\n"
        "from coordinator.engine.transitions import JobMove, TaskMove\n"
        "from shared.model.documents import TaskDocument\n"
        "from shared.model.queries import Change\n"
        "from shared.model.states import JobState, TaskState\n"
        "def planted(task: TaskDocument, steps: list[Effect]) -> None:\n"
        '    change_task("t", {}, {"run": 1}, move=TaskMove((TaskState.PENDING,), TaskState.RUNNING))\n'
    )
    planted.write_text(head + "".join(f"    {line}\n" for line in UNTYPED))
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
    said, failure, _ = api.run([*options, str(planted)])
    assert not failure
    found = [
        line.rpartition("[")[2].rstrip("]") for line in said.splitlines() if ": error: " in line
    ]
    assert found == list(UNTYPED.values()), said


def _around(tree: ast.AST) -> Iterator[str]:
    """Yield the kinds of calls and assignments that would write a state past the table, and mypy lets pass."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named = {keyword.arg: keyword.value for keyword in node.keywords}
            called = ast.unparse(node.func).rpartition(".")[2]
            kind = ast.unparse(named["kind"]) if "kind" in named else ""
            if called.endswith("Change") and kind in ("JobDocument", "TaskDocument"):
                yield "change"
            if called == "replace" and "state" in named:
                yield "copy"
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            written = ast.unparse(node)
            if written in ("job.state", "task.state"):
                yield "assignment"


def test_states_are_written_where_moves_are_and_nowhere_else() -> None:
    found = {
        (str(path.relative_to(ROOT / "coordinator")), way)
        for path in (ROOT / "coordinator").rglob("*.py")
        for way in _around(ast.parse(path.read_text()))
    }
    assert found == {
        ("engine/flow.py", "change"),
        ("engine/transitions.py", "copy"),
        (
            "engine/webhook_triggers.py",
            "copy",
        ),  # what is shown of a document as it was, never stored
    }


def test_the_look_for_states_written_elsewhere_finds_them() -> None:
    planted = (
        'Change(kind=TaskDocument, id="t", set={"state": "X"})\n'
        'msgspec.structs.replace(task, state="X")\n'
        'task.state = "X"\n'
    )
    assert list(_around(ast.parse(planted))) == ["change", "copy", "assignment"]
