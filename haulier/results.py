"""The types of the API's responses. Unknown fields are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec

_T = TypeVar("_T")

ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""The states that a job does not leave by itself."""


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all responses."""


class Page(Result, Generic[_T], frozen=True, kw_only=True):
    """A page of a list. `size` is the number of items on it; `number` counts from 1."""

    items: list[_T] = []
    number: int = 1
    size: int = 0
    total_pages: int = 0
    total_items: int = 0
    total_capped: bool = False


class User(Result, frozen=True, kw_only=True):
    """A user who can sign in."""

    username: str
    id: str = ""
    name: str = ""
    created_at: datetime | None = None
    disabled: bool = False
    roles: list[str] = []


class Role(Result, frozen=True, kw_only=True):
    """A role that permissions can name."""

    name: str
    id: str = ""
    created_at: datetime | None = None


class Usage(Result, frozen=True, kw_only=True):
    """The resources that a run used; if `sampled`, the figures are estimates."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    sampled: bool = False


class Task(Result, frozen=True, kw_only=True):
    """One attempt at one task of a job."""

    id: str
    job_id: str = ""
    parent_id: str | None = None
    position: int = 0
    name: str = ""
    description: str = ""
    tags: list[str] = []
    state: str = ""
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    image: str = ""
    run: str = ""
    queue: str = ""
    node_id: str = ""
    var: str = ""
    progress: float = 0.0
    result: str | None = None
    error: str | None = None
    exit_code: int | None = None
    usage: Usage | None = None
    log_incomplete: bool = False


class JobSummary(Result, frozen=True, kw_only=True):
    """A job as lists show it."""

    id: str
    name: str = ""
    description: str = ""
    parent_id: str | None = None
    tags: list[str] = []
    inputs: dict[str, str] = {}
    state: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    position: int = 0
    task_count: int = 0
    progress: float = 0.0
    result: str | None = None
    error: str | None = None
    created_by: User | None = None

    @property
    def ended(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.state in ENDED


class Job(JobSummary, frozen=True, kw_only=True):
    """A whole job: `tasks` as submitted, `execution` as they ran."""

    tasks: list[dict[str, Any]] = []
    execution: list[Task] = []
    execution_truncated: bool = False
    context: dict[str, Any] = {}


class LogPart(Result, frozen=True, kw_only=True):
    """Some complete lines of a task's log."""

    task_id: str
    contents: str
    number: int = 0
    id: str = ""
    created_at: datetime | None = None


class LogLine(Result, frozen=True, kw_only=True):
    """A line of a log that is followed, without its end."""

    task_id: str
    text: str


class Node(Result, frozen=True, kw_only=True):
    """A coordinator or worker."""

    id: str
    name: str = ""
    hostname: str = ""
    version: str = ""
    status: str = ""
    cpu_percent: float = 0.0
    task_count: int = 0
    queue: str = ""
    port: int | None = None
    started_at: datetime | None = None
    last_heartbeat_at: datetime | None = None


class Queue(Result, frozen=True, kw_only=True):
    """The statistics of a queue. `unacked` is None where it can't be known."""

    name: str
    size: int = 0
    subscribers: int = 0
    unacked: int | None = None


class Health(Result, frozen=True, kw_only=True):
    """The health of the server: `UP`, or `DOWN` with the reason in `message`."""

    status: str
    version: str = ""
    message: str = ""


class Running(Result, frozen=True, kw_only=True):
    """The number of running jobs or tasks."""

    running: int = 0


class OnlineNodes(Result, frozen=True, kw_only=True):
    """How many nodes are online, and their average CPU load."""

    online: int = 0
    cpu_percent: float = 0.0


class Metrics(Result, frozen=True, kw_only=True):
    """The metrics of the cluster."""

    jobs: Running = Running()
    tasks: Running = Running()
    nodes: OnlineNodes = OnlineNodes()


class ScheduledJob(Result, frozen=True, kw_only=True):
    """A scheduled job."""

    id: str
    name: str = ""
    description: str = ""
    tags: list[str] = []
    cron: str = ""
    timezone: str = ""
    state: str = ""
    created_at: datetime | None = None
    next_at: datetime | None = None


class Event(Result, frozen=True, kw_only=True):
    """A change that `GET /events` told of: its type, as `job.StateChange`, and its data."""

    type: str
    data: Any
