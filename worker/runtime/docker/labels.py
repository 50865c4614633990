"""Names and labels of everything that Haulier creates, so that it can be found again."""

from __future__ import annotations

import re
import uuid

from worker.runtime.port import Assignment

NODE = "haulier.node"
JOB = "haulier.job"
TASK = "haulier.task"
ATTEMPT = "haulier.attempt"
ROLE = "haulier.role"

NAME_PREFIX = "haulier-"
"""How all names begin: an image may carry our labels, so those alone say nothing."""


def of(assignment: Assignment, node_id: str) -> dict[str, str]:
    """Return the labels of what is made for a run."""
    return {
        NODE: node_id,
        JOB: assignment.job_id,
        TASK: assignment.task_id,
        ATTEMPT: str(assignment.attempt),
    }


def fresh_name(task_id: str = "") -> str:
    """Return a name that nothing has had, for all that is made for a run."""
    task = re.sub(r"[^A-Za-z0-9]", "", task_id)[:12]
    return (
        f"{NAME_PREFIX}{task}-{uuid.uuid4().hex[:12]}"
        if task
        else NAME_PREFIX + uuid.uuid4().hex[:12]
    )


def slug(name: str) -> str:
    """Return the host name that goes with a task's name: `My Redis!` → `my-redis`; may be empty."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")
