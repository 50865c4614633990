"""The documents that a datastore keeps. Tolerant: unknown fields are ignored, so that versions can mix.

Times are whole microseconds since 1970-01-01 UTC (`Micros`), by the store's clock: exact in every store, and in
order as they are. What may hold a secret's value is listed in a type's `sealed` and rests encrypted where a key
is configured.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self

import msgspec

from shared.errors import ApplicationError
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


class Locked:
    """Stands for what rests sealed and can't be opened here: whoever uses it meets the reason. So one document keeps
    nobody from those beside it, nor from what it says of itself in the clear, and is withdrawn, removed and listed as
    any other."""

    def __init__(self, reason: ApplicationError) -> None:
        self.reason = reason

    def _refuse(self, *_: object) -> NoReturn:
        raise type(self.reason)(str(self.reason))

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __str__ = __add__ = _refuse


class Document(msgspec.Struct, kw_only=True, rename="camel"):
    """Something stored under an `id`."""

    collection: ClassVar[str]
    sealed: ClassVar[tuple[str, ...]] = ()
    heavy: ClassVar[tuple[str, ...]] = ()
    """Fields that may be large, and that a question about structure or state need not read."""

    id: str
    then: list[Intent] = []

    @classmethod
    def noun(cls) -> str:
        """Return what messages call such a document: `job`, `task`."""
        return cls.__name__.removesuffix("Document").lower()

    @property
    def locked(self) -> str:
        """Return why something that it holds sealed can't be opened; an empty text where all can."""
        return next((str(value.reason) for value in self._locked().values()), "")

    def opened(self) -> Self:
        """Return it with nothing where what it holds can't be opened: to show the rest, never to go by."""
        locked = self._locked()
        if not locked:
            return self
        fields = {each.name: each for each in msgspec.structs.fields(self)}
        return msgspec.structs.replace(self, **{name: _default_of(fields[name]) for name in locked})

    def _locked(self) -> dict[str, Locked]:
        held = {name: getattr(self, name) for name in self.sealed}
        return {name: value for name, value in held.items() if isinstance(value, Locked)}


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


class RunUsage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The resources that a run used. If `sampled`, the figures are estimates."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    sampled: bool = False


class LostRunEntry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A run that came to nothing, and why, in words."""

    number: int
    node_id: str = ""
    started_at: Micros = 0
    ended_at: Micros = 0
    why: str = ""
    nonce: str = ""
    """What it was granted to, which is granted nothing any more."""


class Actor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Who submitted a job."""

    id: str
    username: str
    name: str = ""
    created_at: Micros = 0
    disabled: bool = False

    def is_same(self, other: Actor) -> bool:
        """Tell whether both are the same user: one who was deleted and created anew has the same id and name."""
        return (self.id, self.created_at) == (other.id, other.created_at)


GUEST = Actor(id="00000000000000000000000000000001", username="guest", name="Guest")
"""Who asks where no authentication is on."""


class ScheduleRef(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Which schedule made a job, and for which firing."""

    id: str
    cron: str = msgspec.field(default_factory=str)
    """Empty for one that fires once. Always stored: versions that knew no such schedules read no job without it."""
    time: Micros = 0
    """When the firing was due."""
    previous: Micros = 0
    """When the firing before it was due; 0 for the first."""


class TaskReference(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A task of a job, by its id and name."""

    id: str
    name: str = ""


class JobDocument(Document, kw_only=True, rename="camel"):
    """A job and its state. `definition` is the job as submitted."""

    collection = "jobs"
    sealed = ("definition", "inherited_secrets", "result")
    heavy = sealed

    definition: language.JobDefinition = language.JobDefinition()
    inherited_secrets: list[str] = []
    """Values that must not be shown besides those that it declares secret itself: those of the jobs above a sub-job,
    which may have come down in its inputs, and those whose key said so when it was made."""
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
    """Of its definition, or of the job above it; users are called what their documents say (`UserDocument.reader`)."""
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
    failed_task: TaskReference | None = None
    """The task that made it fail: of those inside one another the innermost."""
    rerun_of: str | None = None
    """The job that it was made from, by `rerun`."""
    hidden_by: Actor | None = None
    """Who submitted what is hidden in it, where that is not who it was created by: it, or a job above it, was made from
    that user's job."""
    trace: str = ""
    """The `traceparent` of the request that made it, or made the job above it; empty where there was none."""


class TombstoneDocument(Document, kw_only=True, rename="camel"):
    """The id of a job that was deleted, and nothing else of it: the same job is not made again."""

    collection = "tombstones"

    buried_at: Micros


class TaskDocument(Document, kw_only=True, rename="camel"):
    """One attempt at one task of a job; children of composites too."""

    collection = "tasks"
    sealed = ("definition", "evaluated", "scope", "result")
    heavy = sealed

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
    runs: list[LostRunEntry] = []
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
    failed_task: TaskReference | None = None
    """Of a composite that failed: the task inside it that made it fail."""
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


def log_part_id(task_id: str, run: int, number: int) -> str:
    """Return the id that a part of a log always has."""
    return f"{task_id}.{run}.{number}"


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
    succeeded_by: str | None = None
    """The node of the process that came after its own, on the same host: no beat opens an epoch of it any more."""
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
    heavy = ("body", "headers", "secret")

    job_id: str
    user: str = ""
    """The id of who submitted the job."""
    event: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    secret: str = ""
    body: str = ""
    """What is sent; empty when that is over. Not encrypted: coordinators of the version before would send it as it
    rests."""
    line: str | None = None
    """What it must keep its turn among: one webhook's deliveries for one job or task."""
    sequence: int = 0
    """Its turn in the line."""
    progress: bool = False
    """Whether a newer one in the line makes it needless."""
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    due_at: Micros = 0
    created_at: Micros = 0
    error: str | None = None
    status: int | None = None
    """What the receiver answered to the last try; None where no answer came."""
    answered_at: Micros | None = None
    """When that came."""


class ScheduleDocument(Document, kw_only=True, rename="camel"):
    """A scheduled job."""

    collection = "schedules"
    sealed = ("definition",)
    heavy = ("definition", "description", "tags")

    definition: language.JobDefinition = language.JobDefinition()
    name: str
    description: str = ""
    tags: list[str] = []
    cron: str = ""
    at: Micros | None = None
    """When it fires, if once."""
    timezone: str = "UTC"
    catchup: str = ""
    overlap: str = ""
    state: ScheduleState = ScheduleState.ACTIVE
    created_at: Micros = 0
    created_by: Actor = GUEST
    permissions: list[language.Permission] = []
    next_at: Micros | None = None
    fired_at: Micros | None = None
    """The last firing that makes a job; that it is still to be made is an intent."""
    last_job_id: str | None = None
    """The job of that firing."""
    late: int = 0
    """Firings in a row that were made late, up to now."""
    error: str | None = None
    """Why it could not fire the last time."""


class UserDocument(Document, kw_only=True, rename="camel"):
    """A user who can sign in. `password_hash` is an argon2id hash."""

    collection = "users"

    username: str
    name: str = ""
    password_hash: str = ""
    roles: list[str] = []
    rev: int = 0
    """Counts the changes, so that two at once don't undo each other."""
    configured_hash: str = ""
    """Of the password that the configuration gave it last."""
    created_at: Micros = 0
    disabled: bool = False
    permitted_as: str = ""
    """What permissions that are kept with a job call this user, and no other one of this name; empty for one whom an
    earlier version made: those have the name."""

    @property
    def reader(self) -> str:
        """Return what permissions that are kept with a job call this user."""
        return self.permitted_as or self.username

    @property
    def actor(self) -> Actor:
        """Return who submits what this user submits."""
        return Actor(self.id, self.username, self.name, self.created_at, self.disabled)


class TokenDocument(Document, kw_only=True, rename="camel"):
    """What a program signs in with, or a browser's session. Of the token itself only a hash is kept."""

    collection = "tokens"

    name: str = ""
    username: str
    bound_to: str
    """What it ends with: its user (a later one of the same name is somebody else), or the shared key."""
    role: str
    hash: str
    session: bool = False
    of_token: str = ""
    """Of a session that began with a token: that token, with which it ends."""
    created_at: Micros = 0
    expires_at: Micros
    used_at: Micros | None = None


class AuditIntentDocument(Document, kw_only=True, rename="camel"):
    """What a request is about to do, until the audit log has it."""

    collection = "audit_intents"

    at: Micros
    action: str
    target: str = ""
    username: str = ""
    how: str = ""
    token_id: str = ""
    address: str = ""
    count: int = 1


class AuditDocument(Document, kw_only=True, rename="camel"):
    """An entry of the audit log: what was done, and its place in the chain of the process that wrote it."""

    collection = "audit_entries"

    at: Micros
    action: str
    target: str = ""
    username: str = ""
    how: str = ""
    token_id: str = ""
    address: str = ""
    count: int = 1
    """How often: refused logins may be counted together."""
    status: int = 0
    """How it was answered; 0 where the process died on the way."""
    chain: str
    number: int
    previous: str = ""
    """The signature of the entry before it in its chain."""
    previous_at: Micros = 0
    sealed_at: Micros = 0
    signature: str = ""


class RoleDocument(Document, kw_only=True, rename="camel"):
    """A role that permissions can name."""

    collection = "roles"

    name: str
    created_at: Micros = 0


DOCUMENTS: tuple[type[Document], ...] = (
    JobDocument,
    TombstoneDocument,
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
    TokenDocument,
    AuditIntentDocument,
    AuditDocument,
)
