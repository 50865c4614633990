"""The types of the API's responses. Unknown fields are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec

_T = TypeVar("_T")

ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""The states that a job does not leave by itself."""
STATES: Final = ("PENDING", "SCHEDULED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
"""The states of jobs."""


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all responses."""


class Page(Result, Generic[_T], frozen=True, kw_only=True):
    """A page of a list. `size` is the number of items on it; `number` counts from 1.

    If `total_capped`, there are more than `total_items`, and more pages."""

    items: list[_T] = []
    number: int = 1
    size: int = 0
    total_pages: int = 0
    total_items: int = 0
    total_capped: bool = False

    @property
    def has_more(self) -> bool:
        """Whether there are pages after this one."""
        return self.number < self.total_pages or (self.total_capped and bool(self.items))


class User(Result, frozen=True, kw_only=True):
    """A user who can sign in."""

    username: str
    id: str = ""
    name: str = ""
    created_at: datetime | None = None
    disabled: bool = False
    roles: list[str] = []


class Token(Result, frozen=True, kw_only=True):
    """A token of a user. `token` is its text, known only when it was just made."""

    id: str
    name: str = ""
    username: str = ""
    role: str = ""
    token: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class AuditEntry(Result, frozen=True, kw_only=True):
    """What somebody did. `status` is how it was answered, 0 where the process died on the way."""

    id: str
    at: datetime | None = None
    username: str = ""
    address: str = ""
    action: str = ""
    target: str = ""
    status: int = 0
    count: int = 1


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


class TaskRef(Result, frozen=True, kw_only=True):
    """A task, by its id and name."""

    id: str
    name: str = ""


class Waiting(Result, frozen=True, kw_only=True):
    """Why a task or a job does not run yet; `until`: when it goes on, where that is known."""

    reason: str
    message: str = ""
    since: datetime | None = None
    until: datetime | None = None
    queue: str = ""


class WebhookDelivery(Result, frozen=True, kw_only=True):
    """What a webhook was told, or is to be told. `status`: the receiver's answer to the last try."""

    id: str
    event: str
    url: str
    state: str
    attempts: int
    sequence: int
    created_at: datetime
    next: datetime | None = None
    error: str = ""
    status: int | None = None
    answered_at: datetime | None = None


class Why(Result, frozen=True, kw_only=True):
    """Why a task or job does not run, or why it failed, in a sentence and as data."""

    state: str
    reason: str
    message: str
    task: TaskRef | None = None
    since: datetime | None = None
    until: datetime | None = None
    queue: str = ""
    node_id: str = ""
    slots: int | None = None
    before: int | None = None
    before_capped: bool = False
    attempts: int | None = None
    exit_code: int | None = None
    error: str = ""
    last_line: str = ""


class RetryState(Result, frozen=True, kw_only=True):
    """Further attempts: how many are allowed, and which of them this is."""

    limit: int = 0
    attempts: int = 0


class LostRun(Result, frozen=True, kw_only=True):
    """A run of a task that came to nothing, where and why; the task ran again."""

    number: int = 0
    node_id: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    why: str = ""


class Children(Result, frozen=True, kw_only=True):
    """How many children of an `each` or `parallel` are done, of how many (`size`, of an `each`), of which `index` have
    had their turn."""

    completions: int = 0
    index: int | None = None
    size: int | None = None
    tasks: list[dict[str, Any]] = []


class SubJobState(Result, frozen=True, kw_only=True):
    """The job that a task waits for; `id` once it was created."""

    id: str = ""
    name: str = ""


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
    attempt: int = 0
    waiting: Waiting | None = None
    counts: dict[str, int] | None = None
    retry: RetryState | None = None
    runs: list[LostRun] = []
    parallel: Children | None = None
    each: Children | None = None
    subjob: SubJobState | None = None
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
    failed_task: TaskRef | None = None
    waiting: Waiting | None = None
    rerun_of: str | None = None
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


class JobCounts(Result, frozen=True, kw_only=True):
    """How many jobs are in each state, and have each tag.

    Of the states in `states_capped` there are more jobs. If `tags_capped`, not all jobs or tags were counted."""

    states: dict[str, int] = {}
    tags: dict[str, int] = {}
    states_capped: list[str] = []
    tags_capped: bool = False


class Step(Result, frozen=True, kw_only=True):
    """A step, and why a rerun keeps or runs it."""

    position: int
    name: str
    reason: str = ""


class RerunPlan(Result, frozen=True, kw_only=True):
    """What a rerun would keep, and what would run."""

    kept: list[Step] = []
    run: list[Step] = []


class LogPart(Result, frozen=True, kw_only=True):
    """Some lines of a task's log. The last may be only the beginning of one: then no line break ends it."""

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


class DeadMessage(Result, frozen=True, kw_only=True):
    """A message that nobody could handle, and why. `queue`: where it was taken from."""

    id: str
    queue: str
    reason: str
    size: int
    kind: str = ""
    job_id: str = ""
    task_id: str = ""


class QueueScale(Result, frozen=True, kw_only=True):
    """What a task queue has use for, in slots: `busy` run a task, `ready` tasks wait for one, `desired` is the sum."""

    desired: int
    busy: int
    ready: int


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
    at: datetime | None = None
    timezone: str = ""
    catchup: str = ""
    overlap: str = ""
    state: str = ""
    created_at: datetime | None = None
    next_at: datetime | None = None
    next: list[datetime] = []
    last_at: datetime | None = None
    last_job_id: str = ""
    error: str = ""


class Event(Result, frozen=True, kw_only=True):
    """A change that `GET /events` told of: its type, as `job.StateChange`, and its data."""

    type: str
    data: Any
