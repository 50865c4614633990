"""Jobs for tests, short to write, and what is asked of those that ran."""

from __future__ import annotations

from datetime import datetime
from typing import Any

IMAGE = "alpine:3.18.3"


def task(run: str = "true", **fields: Any) -> dict[str, Any]:
    """Return a container task."""
    return {"name": "task", "image": IMAGE, "run": run, **fields}


def says(text: str, **fields: Any) -> dict[str, Any]:
    """Return a task whose output is `text`, a template."""
    env = {**fields.pop("env", {}), "TEXT": text}
    return task('printf %s "$TEXT" > "$TORK_OUTPUT"', env=env, **fields)


def job(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a job of these tasks."""
    return {"name": "job", "tasks": list(tasks), **fields}


def each(items: str, inner: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a task that does `inner` for each item."""
    return {"name": "each", "each": {"list": items, "task": inner, **fields}}


def parallel(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a task that does these at once."""
    return {"name": "parallel", "parallel": {"tasks": list(tasks)}, **fields}


def subjob(*tasks: dict[str, Any], task_fields: dict[str, Any] | None = None, **fields: Any) -> Any:
    """Return a task that is a job of its own."""
    inner = {"name": "sub-job", "tasks": list(tasks), **fields}
    return {"name": "subjob", "subjob": inner, **(task_fields or {})}


def seconds(time: str) -> float:
    """Return a time of the API in seconds."""
    return datetime.fromisoformat(time).timestamp()


def named(job: Any, name: str) -> list[Any]:
    """Return the tasks of a job that ran under a name."""
    return [found for found in job["execution"] if found["name"] == name]


def results(job: Any, name: str = "task") -> list[Any]:
    """Return what the tasks of a name gave, in order of execution."""
    return [found.get("result") for found in named(job, name)]


def most_at_once(tasks: list[Any]) -> int:
    """Return how many of these tasks ran at the same time, at most."""
    marks = [(seconds(ran["startedAt"]), 1) for ran in tasks]
    marks += [(seconds(ran["completedAt"]), -1) for ran in tasks]
    running = most = 0
    for _, step in sorted(marks):
        running += step
        most = max(most, running)
    return most
