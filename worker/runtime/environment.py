"""The environment of a task: what it asks for, and the names that are ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from worker.runtime.errors import TaskError
from worker.runtime.port import Assignment


def own_names(assignment: Assignment, folder: str) -> dict[str, str]:
    """Return the variables that every task gets and cannot override; `folder`: as it sees it."""
    output, progress = f"{folder}/stdout", f"{folder}/progress"
    return {
        "TORK_OUTPUT": output,
        "TORK_PROGRESS": progress,
        "HAULIER_OUTPUT": output,
        "HAULIER_PROGRESS": progress,
        "HAULIER_JOB_ID": assignment.job_id,
        "HAULIER_TASK_ID": assignment.task_id,
        "HAULIER_ATTEMPT": str(assignment.attempt),
    }


def host_names(names: Iterable[str]) -> dict[str, str]:
    """Return the host's variables that are passed on: `NAME`, or `NAME:ALIAS`; only set ones."""
    passed = {}
    for entry in names:
        name, _, alias = entry.partition(":")
        if name in os.environ:
            passed[alias or name] = os.environ[name]
    return passed


def check_texts(env: Mapping[str, str], arguments: Iterable[str]) -> None:
    """Refuse what no process can be given. Raises TaskError."""
    for name, value in env.items():
        if "\0" in name or "\0" in value:
            raise TaskError(
                f"the value of env.{name} contains a NUL character".replace("\0", "\\0")
            )
    if any("\0" in argument for argument in arguments):
        raise TaskError("an argument of the command contains a NUL character")
