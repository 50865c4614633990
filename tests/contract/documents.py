"""Documents for the datastore suites, with what a test does not care for filled in."""

from __future__ import annotations

from typing import Any

from shared.model import language
from shared.model.documents import (
    DeliveryDocument,
    Intent,
    ItemsDocument,
    JobDocument,
    LogPartDocument,
    NodeDocument,
    TaskDocument,
    UserDocument,
)


def job(id: str, **fields: Any) -> JobDocument:
    filled: dict[str, Any] = {
        "name": f"job {id}",
        "definition": language.JobDefinition(name=f"job {id}"),
    }
    return JobDocument(id=id, **(filled | fields))


def task(id: str, job_id: str = "j", **fields: Any) -> TaskDocument:
    filled: dict[str, Any] = {
        "root_id": job_id,
        "path": "0",
        "position": 1,
        "kind": "container",
        "name": f"task {id}",
        "definition": language.TaskDefinition(name=f"task {id}", run="true"),
    }
    return TaskDocument(id=id, job_id=job_id, **(filled | fields))


def log_part(task_id: str, number: int, **fields: Any) -> LogPartDocument:
    filled: dict[str, Any] = {"job_id": "j", "run": 1, "contents": "text\n", "created_at": number}
    filled |= fields
    id = f"{task_id}-{filled['run']}-{number}"
    return LogPartDocument(id=id, task_id=task_id, number=number, **filled)


def node(id: str, **fields: Any) -> NodeDocument:
    filled: dict[str, Any] = {
        "kind": "worker",
        "name": id,
        "hostname": "host",
        "version": "1",
        "started_at": 1,
        "last_heartbeat_at": 1,
    }
    return NodeDocument(id=id, **(filled | fields))


def user(id: str, username: str) -> UserDocument:
    return UserDocument(id=id, username=username)


def intent(id: str, at: int = 1, **args: Any) -> Intent:
    return Intent(id=id, do="follow", at=at, args=args)


def items(id: str, values: list[Any], job_id: str = "j") -> ItemsDocument:
    return ItemsDocument(id=id, task_id="t", job_id=job_id, digest="d", first=0, values=values)


def delivery(id: str, job_id: str = "j", **fields: Any) -> DeliveryDocument:
    return DeliveryDocument(id=id, job_id=job_id, **({"url": "http://x"} | fields))
