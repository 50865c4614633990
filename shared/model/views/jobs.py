"""Views of jobs and scheduled jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from shared.model import language
from shared.model.documents import Actor, JobDocument, Micros, ScheduleDocument, ScheduleRef
from shared.model.views.redacted import (
    JobStateText,
    ScheduleStateText,
    TimeText,
    View,
    redacted,
    redactor_of,
    rfc3339,
)
from shared.model.views.tasks import TaskRefView, TaskView, WaitingView, task_ref
from shared.redaction import REDACTED, Redactor


class ActorView(View, frozen=True, kw_only=True):
    """The user who did something. `disabled`: whether they are now; of webhooks and events always false."""

    id: str
    username: str
    name: str = ""
    created_at: TimeText
    disabled: bool


class ScheduleRefView(View, frozen=True, kw_only=True):
    """Which schedule made a job; when its firing was due, and the one before."""

    id: str
    cron: str = ""
    time: TimeText = ""
    previous: TimeText = ""


class JobSummaryView(View, frozen=True, kw_only=True):
    """A summary of a job."""

    id: str
    parent_id: str = ""
    name: str
    description: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    schedule: ScheduleRefView | None = None
    state: JobStateText
    created_at: TimeText
    started_at: TimeText = ""
    completed_at: TimeText = ""
    failed_at: TimeText = ""
    delete_at: TimeText = ""
    position: int
    task_count: int
    progress: float
    result: str = ""
    error: str = ""
    failed_task: TaskRefView | None = None
    waiting: WaitingView | None = None
    rerun_of: str = ""
    created_by: ActorView
    abridged: bool = False
    """Inputs and result are left out, because the answer would be too large; the job's own answer has them."""


class JobName(View, frozen=True, kw_only=True):
    """What expressions can see of a job."""

    id: str
    name: str


class ContextView(View, frozen=True, kw_only=True):
    """What expressions can see: the job, inputs, names of secrets, and results of tasks by `var`."""

    job: JobName
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    tasks: dict[str, str] = msgspec.field(default_factory=dict)


class JobView(JobSummaryView, frozen=True, kw_only=True):
    """A whole job: `tasks` as submitted, `execution` as they ran."""

    tasks: list[language.TaskDefinition]
    execution: list[TaskView]
    execution_truncated: bool = False
    context: ContextView
    output: str = ""
    defaults: language.Defaults | None = None
    webhooks: list[language.Webhook] = msgspec.field(default_factory=list)
    permissions: list[language.Permission] = msgspec.field(default_factory=list)
    auto_delete: language.AutoDelete | None = None
    secrets: dict[str, str] = msgspec.field(default_factory=dict)


class ScheduleView(View, frozen=True, kw_only=True):
    """A scheduled job; `state` is ACTIVE or PAUSED. `error`: why it could not fire the last time that it was to."""

    id: str
    name: str
    description: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    cron: str = ""
    at: TimeText = ""
    timezone: str
    catchup: str = ""
    overlap: str = ""
    state: ScheduleStateText
    created_at: TimeText
    created_by: ActorView
    next_at: TimeText = ""
    next: list[TimeText] = msgspec.field(default_factory=list)
    last_at: TimeText = ""
    last_job_id: str = ""
    error: str = ""
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    tasks: list[language.TaskDefinition]
    output: str = ""
    defaults: language.Defaults | None = None
    webhooks: list[language.Webhook] = msgspec.field(default_factory=list)
    permissions: list[language.Permission] = msgspec.field(default_factory=list)
    auto_delete: language.AutoDelete | None = None
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    abridged: bool = False
    """What its jobs are told is left out, because the answer would be too large; its own answer has that."""


def job_summary(
    job: JobDocument, redactor: Redactor | None = None, waiting: WaitingView | None = None
) -> JobSummaryView:
    """Return a job in short, as lists, webhooks and events show it.

    `redactor`: by default that of the job's own definition. `waiting`: why nothing of it runs.
    """
    locked, job = job.locked, job.opened()
    redactor = redactor or redactor_of(job.definition)
    return JobSummaryView(
        id=job.id,
        parent_id=job.parent_id or "",
        name=redactor.redact(job.name),
        description=redactor.redact(job.description),
        tags=[redactor.redact(tag) for tag in job.tags],
        inputs=redactor.redact_map(job.definition.inputs),
        schedule=_schedule_ref(job.schedule),
        state=job.state,
        created_at=rfc3339(job.created_at),
        started_at=rfc3339(job.started_at),
        completed_at=rfc3339(job.completed_at),
        failed_at=rfc3339(job.failed_at),
        delete_at=rfc3339(job.delete_at),
        position=job.position,
        task_count=job.task_count,
        progress=job.progress,
        result=redactor.redact(job.result or ""),
        error=locked or redactor.redact(job.error or ""),
        failed_task=task_ref(job.failed_task, redactor),
        waiting=waiting,
        rerun_of=job.rerun_of or "",
        created_by=actor_view(job.created_by),
    )


def job_view(
    job: JobDocument,
    redactor: Redactor,
    *,
    execution: Sequence[TaskView] = (),
    truncated: bool = False,
    waiting: WaitingView | None = None,
    results: Mapping[str, str] | None = None,
) -> JobView:
    """Return all of a job; `results` are those of its tasks by `var`."""
    summary = job_summary(job, redactor, waiting)
    job = job.opened()
    shown = redacted(job.definition, redactor)
    secrets = dict.fromkeys(job.definition.secrets, REDACTED)
    return JobView(
        **msgspec.structs.asdict(summary),
        tasks=shown.tasks,
        execution=list(execution),
        execution_truncated=truncated,
        context=ContextView(
            job=JobName(id=job.id, name=summary.name),
            inputs=summary.inputs,
            secrets=secrets,
            tasks=redactor.redact_map(results or {}),
        ),
        output=shown.output,
        defaults=shown.defaults,
        webhooks=shown.webhooks,
        permissions=shown.permissions,
        auto_delete=shown.auto_delete,
        secrets=secrets,
    )


def _schedule_ref(schedule: ScheduleRef | None) -> ScheduleRefView | None:
    if schedule is None:
        return None
    return ScheduleRefView(
        id=schedule.id,
        cron=schedule.cron,
        time=rfc3339(schedule.time or None),
        previous=rfc3339(schedule.previous or None),
    )


def _last_made(schedule: ScheduleDocument) -> tuple[Micros | None, str]:
    """Return when the last job was made that is there, and its id: not that of a firing that still waits."""
    if not schedule.then:
        return schedule.fired_at, schedule.last_job_id or ""
    args = schedule.then[0].args
    return args.get("previous") or None, args.get("after", "")


def schedule_view(
    schedule: ScheduleDocument, redactor: Redactor | None = None, next: Sequence[Micros] = ()
) -> ScheduleView:
    """Return all of a scheduled job. `redactor`: by default that of its own definition. `next`: when it fires."""
    locked, schedule = schedule.locked, schedule.opened()
    redactor = redactor or redactor_of(schedule.definition)
    last_at, last_job_id = _last_made(schedule)
    shown = redacted(schedule.definition, redactor)
    return ScheduleView(
        id=schedule.id,
        name=redactor.redact(schedule.name),
        description=redactor.redact(schedule.description),
        tags=[redactor.redact(tag) for tag in schedule.tags],
        cron=schedule.cron,
        at=rfc3339(schedule.at),
        timezone=schedule.timezone,
        catchup=schedule.catchup,
        overlap=schedule.overlap,
        state=schedule.state,
        created_at=rfc3339(schedule.created_at),
        created_by=actor_view(schedule.created_by),
        next_at=rfc3339(schedule.next_at),
        next=[rfc3339(at) for at in next],
        last_at=rfc3339(last_at),
        last_job_id=last_job_id,
        error=locked or redactor.redact(schedule.error or ""),
        inputs=redactor.redact_map(shown.inputs),
        tasks=shown.tasks,
        output=shown.output,
        defaults=shown.defaults,
        webhooks=shown.webhooks,
        permissions=shown.permissions,
        auto_delete=shown.auto_delete,
        secrets=dict.fromkeys(schedule.definition.secrets, REDACTED),
    )


def actor_view(actor: Actor) -> ActorView:
    """Return who submitted something."""
    return ActorView(
        id=actor.id,
        username=actor.username,
        name=actor.name,
        created_at=rfc3339(actor.created_at),
        disabled=actor.disabled,
    )
