"""Documents for the datastore suites, with what a test does not care for filled in."""

from __future__ import annotations

from typing import Any

from shared.model import language
from shared.model.documents import Delivery, Intent, Items, Job, LogPart, Node, Task, User


def job(id: str, **fields: Any) -> Job:
    filled: dict[str, Any] = {"name": f"job {id}", "definition": language.Job(name=f"job {id}")}
    return Job(id=id, **(filled | fields))


def task(id: str, job_id: str = "j", **fields: Any) -> Task:
    filled: dict[str, Any] = {
        "root_id": job_id,
        "path": "0",
        "position": 1,
        "kind": "container",
        "name": f"task {id}",
        "definition": language.Task(name=f"task {id}", run="true"),
    }
    return Task(id=id, job_id=job_id, **(filled | fields))


def log_part(task_id: str, number: int, **fields: Any) -> LogPart:
    filled: dict[str, Any] = {"job_id": "j", "run": 1, "contents": "text\n", "created_at": number}
    filled |= fields
    id = f"{task_id}-{filled['run']}-{number}"
    return LogPart(id=id, task_id=task_id, number=number, **filled)


def node(id: str, **fields: Any) -> Node:
    filled: dict[str, Any] = {
        "kind": "worker",
        "name": id,
        "hostname": "host",
        "version": "1",
        "started_at": 1,
        "last_heartbeat_at": 1,
    }
    return Node(id=id, **(filled | fields))


def user(id: str, username: str) -> User:
    return User(id=id, username=username)


def intent(id: str, at: int = 1, **args: Any) -> Intent:
    return Intent(id=id, do="follow", at=at, args=args)


def items(id: str, values: list[Any], job_id: str = "j") -> Items:
    return Items(id=id, task_id="t", job_id=job_id, digest="d", first=0, values=values)


def delivery(id: str, job_id: str = "j", **fields: Any) -> Delivery:
    return Delivery(id=id, job_id=job_id, **({"url": "http://x"} | fields))
