"""The documents that a datastore keeps. Tolerant: unknown fields are ignored, so that versions can mix.

Times are whole microseconds since 1970-01-01 UTC (`Micros`), by the store's clock: exact in every store, and in
order as they are. What may hold a secret's value is listed in a type's `sealed` and rests encrypted where a key
is configured.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from shared.model import language
from shared.model.states import (
    DeliveryState,
    Hold,
    JobState,
    NodeKind,
    NodeStatus,
    ScheduleState,
    TaskKind,
    TaskState,
)

Micros = int
"""Microseconds since 1970-01-01T00:00:00Z."""

MICROS_PER_SECOND: Micros = 1_000_000


class Intent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What must still follow from a write; kept in the written document until it is done.

    `id` names it within its document, `do` is one of the follow-ups of `coordinator.engine`, `at` says when it is
    due (so that due work may tell a forgotten one), `args` is data for it.
    """

    id: str
    do: str
    at: Micros
    args: dict[str, Any] = {}
    tries: int = 0
    """How often it was taken up again, the present time included."""
    error: str = ""
    """Why the last try failed; empty where its process died on the way."""


class Document(msgspec.Struct, kw_only=True, rename="camel"):
    """Something stored under an `id`."""

    collection: ClassVar[str]
    sealed: ClassVar[tuple[str, ...]] = ()

    id: str
    then: list[Intent] = []

    @classmethod
    def noun(cls) -> str:
        """Return what messages call such a document: `job`, `task`."""
        return cls.__name__.removesuffix("Document").lower()


class RunUsage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The resources that a run used. If `sampled`, the figures are estimates."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    sampled: bool = False


class LostRun(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A run that came to nothing, and why, in words."""

    number: int
    node_id: str = ""
    started_at: Micros = 0
    ended_at: Micros = 0
    why: str = ""


class Actor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Who submitted a job."""

    id: str
    username: str
    name: str = ""
    created_at: Micros = 0
    disabled: bool = False


GUEST = Actor(id="00000000000000000000000000000001", username="guest", name="Guest")
"""Who asks where no authentication is on."""


class ScheduleRef(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Which schedule made a job."""

    id: str
    cron: str


class JobDocument(Document, kw_only=True, rename="camel"):
    """A job and its state. `definition` is the job as submitted."""

    collection = "jobs"
    sealed = ("definition", "inherited_secrets", "result")

    definition: language.JobDefinition = language.JobDefinition()
    inherited_secrets: list[str] = []
    """Values that jobs above a sub-job declare secret: they may have come down in its inputs."""
    name: str
    description: str = ""
    tags: list[str] = []
    state: JobState = JobState.PENDING
    root_id: str = ""
    parent_id: str | None = None
    detached_from: str | None = None
    depth: int = 0
    restarts: int = 0
    position: int = 0
    task_count: int = 0
    progress: float = 0.0
    created_by: Actor = GUEST
    permissions: list[language.Permission] = []
    schedule: ScheduleRef | None = None
    body_hash: str | None = None
    created_at: Micros = 0
    started_at: Micros | None = None
    completed_at: Micros | None = None
    failed_at: Micros | None = None
    ended_at: Micros | None = None
    delete_at: Micros | None = None
    deleted_at: Micros | None = None
    """When it was marked as one to be removed: from then on nobody is shown it, and it can't be restarted."""
    restarted_from: int | None = None
    """Position at which the present restart began. Results of earlier restarts count up to there."""
    result: str | None = None
    error: str | None = None


class TaskDocument(Document, kw_only=True, rename="camel"):
    """One attempt at one task of a job; children of composites too."""

    collection = "tasks"
    sealed = ("definition", "evaluated", "scope", "result")

    job_id: str
    root_id: str
    parent_id: str | None = None
    path: str
    """Where it stands in the job: `2`, `2/0`, `2/0/17`; the same for all attempts and restarts."""
    position: int
    """That of the top-level task it is or belongs to, from 1."""
    index: int = 0
    """Its place among its parent's children, from 0."""
    depth: int = 0
    """How many composites and sub-jobs stand above it, up to the root job."""
    kind: TaskKind
    name: str
    definition: language.TaskDefinition = language.TaskDefinition()
    state: TaskState = TaskState.CREATED
    open: bool = True
    """Active, or its structural successor (next attempt, children, sub-job) is not yet inserted."""
    active: bool = True
    """Not ended. Among active tasks the numbers of slots are unique (engine spec, Slots have numbers)."""
    hold: Hold | None = None
    due_at: Micros | None = None
    restarts: int = 0
    attempt: int = 1
    run: int = 0
    lost: int = 0
    lost_by: str | None = None
    runs: list[LostRun] = []
    """The newest runs that were lost or handed back; `run` tells how many there were in all."""
    node_id: str | None = None
    epoch: int | None = None
    nonce: str | None = None
    claim_beat: int = 0
    seed: int = 0
    evaluated_at: Micros | None = None
    evaluated: language.TaskDefinition | None = None
    scope: dict[str, Any] = {}
    """Loop variables of the enclosing `each`es: name → {"index": "0", "value": …}."""
    queue: str | None = None
    priority: int = 0
    var: str | None = None
    slot_of: str | None = None
    slot: int | None = None
    """Its number among the concurrent children of `slot_of`, an `each`."""
    window_of: str | None = None
    window: int | None = None
    """Its number in the window `window_of` of its root job."""
    size: int | None = None
    list_digest: str | None = None
    expanded: bool = True
    expanded_to: int = 0
    """How many children of a composite are inserted, while it is being expanded."""
    subjob_id: str | None = None
    created_at: Micros = 0
    published_at: Micros | None = None
    """When it became PENDING, or was last sent to its queue."""
    scheduled_at: Micros | None = None
    started_at: Micros | None = None
    completed_at: Micros | None = None
    failed_at: Micros | None = None
    ended_at: Micros | None = None
    progress: float = 0.0
    result: str | None = None
    error: str | None = None
    exit_code: int | None = None
    usage: RunUsage | None = None
    log_parts: int | None = None


class ItemsDocument(Document, kw_only=True, rename="camel"):
    """A part of the evaluated list of an `each`: items from `first` on."""

    collection = "items"
    sealed = ("values",)

    task_id: str
    job_id: str
    digest: str
    """Which evaluation of the list it is a part of: the one that the task's `list_digest` names counts."""
    first: int
    values: list[Any] = []


class LogPartDocument(Document, kw_only=True, rename="camel"):
    """Whole lines of a task's log, numbered from 1 within (task, run)."""

    collection = "logs"

    task_id: str
    job_id: str
    run: int
    number: int
    contents: str = ""
    created_at: Micros


class NodeDocument(Document, kw_only=True, rename="camel"):
    """A coordinator or worker, and the lease that its heartbeats renew."""

    collection = "nodes"

    kind: NodeKind
    name: str
    hostname: str
    version: str
    started_at: Micros
    last_heartbeat_at: Micros
    beat: int = 0
    cpu_percent: float = 0.0
    task_count: int = 0
    queue: str | None = None
    queues: dict[str, int] = {}
    port: int | None = None
    status: NodeStatus = NodeStatus.UP
    draining: bool = False
    drain_asked: bool | None = None
    """Whether a user asked for it to drain; None where nobody has said."""
    epoch: int = 1
    lease_until: Micros = 0
    closed: bool = False
    """Whether the present epoch is over: its lease ran out."""
    left_nothing: bool = False
    """Whether it has been closed for so long that no run of its can be left: sweeps need not ask about it any more."""
    holding: list[str] = []
    """Ids of tasks whose delivery it holds, by its last beat."""


class QueueDocument(Document, kw_only=True, rename="camel"):
    """A task queue that we have had made; its name is its id. A broker need not be able to list what is there."""

    collection = "queues"

    used_at: Micros
    """When it was last seen in use, to within some minutes."""


class Pulse(Document, kw_only=True, rename="camel"):
    """How far each coordinator queue has been handled (engine spec, The pulse)."""

    collection = "pulse"

    stamps: dict[str, Micros] = {}
    moved_at: Micros = 0
    era_at: Micros = 0
    rev: int = 0
    forced: dict[str, Micros] = {}


class DeliveryDocument(Document, kw_only=True, rename="camel"):
    """A webhook's delivery, stored before it is tried."""

    collection = "deliveries"
    sealed = ("url", "headers", "secret")

    job_id: str
    user: str = ""
    """The id of who submitted the job."""
    url: str
    headers: dict[str, str] = {}
    secret: str = ""
    body: str = ""
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    due_at: Micros = 0
    created_at: Micros = 0
    error: str | None = None


class ScheduleDocument(Document, kw_only=True, rename="camel"):
    """A scheduled job."""

    collection = "schedules"
    sealed = ("definition",)

    definition: language.JobDefinition
    name: str
    description: str = ""
    tags: list[str] = []
    cron: str
    timezone: str = "UTC"
    catchup: str = ""
    state: ScheduleState = ScheduleState.ACTIVE
    created_at: Micros = 0
    created_by: Actor = GUEST
    permissions: list[language.Permission] = []
    next_at: Micros | None = None
    fired_at: Micros | None = None
    late: int = 0
    """Firings in a row that were made late, up to now."""


class UserDocument(Document, kw_only=True, rename="camel"):
    """A user who can sign in. `password_hash` is an argon2id hash."""

    collection = "users"

    username: str
    name: str = ""
    password_hash: str = ""
    roles: list[str] = []
    rev: int = 0
    """Counts the changes of `roles`, so that two at once don't undo each other."""
    created_at: Micros = 0
    disabled: bool = False


class RoleDocument(Document, kw_only=True, rename="camel"):
    """A role that permissions can name."""

    collection = "roles"

    name: str
    created_at: Micros = 0


DOCUMENTS: tuple[type[Document], ...] = (
    JobDocument,
    TaskDocument,
    ItemsDocument,
    LogPartDocument,
    NodeDocument,
    QueueDocument,
    Pulse,
    DeliveryDocument,
    ScheduleDocument,
    UserDocument,
    RoleDocument,
)
