"""Views of jobs and scheduled jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from shared.model import language
from shared.model.documents import Actor, JobDocument, ScheduleDocument, ScheduleRef
from shared.model.views.redacting import TimeText, View, redacted, redactor_of, rfc3339
from shared.model.views.tasks import TaskView
from shared.redaction import REDACTED, Redactor


class ActorView(View, frozen=True, kw_only=True):
    """The user who did something."""

    id: str
    username: str
    name: str = ""
    created_at: TimeText
    disabled: bool


class JobSummaryView(View, frozen=True, kw_only=True):
    """A summary of a job."""

    id: str
    parent_id: str = ""
    name: str
    description: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    schedule: ScheduleRef | None = None
    state: str
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
    created_by: ActorView


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
    """A scheduled job; `state` is ACTIVE or PAUSED."""

    id: str
    name: str
    description: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    cron: str
    timezone: str
    catchup: str = ""
    state: str
    created_at: TimeText
    created_by: ActorView
    next_at: TimeText = ""
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    tasks: list[language.TaskDefinition]
    output: str = ""
    defaults: language.Defaults | None = None
    webhooks: list[language.Webhook] = msgspec.field(default_factory=list)
    permissions: list[language.Permission] = msgspec.field(default_factory=list)
    auto_delete: language.AutoDelete | None = None
    secrets: dict[str, str] = msgspec.field(default_factory=dict)


def job_summary(job: JobDocument, redactor: Redactor | None = None) -> JobSummaryView:
    """Return a job in short, as lists, webhooks and events show it.

    `redactor`: by default that of the job's own definition.
    """
    redactor = redactor or redactor_of(job.definition)
    return JobSummaryView(
        id=job.id,
        parent_id=job.parent_id or "",
        name=redactor.redact(job.name),
        description=redactor.redact(job.description),
        tags=[redactor.redact(tag) for tag in job.tags],
        inputs=redactor.redact_map(job.definition.inputs),
        schedule=job.schedule,
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
        error=redactor.redact(job.error or ""),
        created_by=actor_view(job.created_by),
    )


def job_view(
    job: JobDocument,
    redactor: Redactor,
    *,
    execution: Sequence[TaskView] = (),
    truncated: bool = False,
    results: Mapping[str, str] | None = None,
) -> JobView:
    """Return all of a job; `results` are those of its tasks by `var`."""
    summary = job_summary(job, redactor)
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


def schedule_view(schedule: ScheduleDocument, redactor: Redactor | None = None) -> ScheduleView:
    """Return all of a scheduled job. `redactor`: by default that of its own definition."""
    redactor = redactor or redactor_of(schedule.definition)
    shown = redacted(schedule.definition, redactor)
    return ScheduleView(
        id=schedule.id,
        name=redactor.redact(schedule.name),
        description=redactor.redact(schedule.description),
        tags=[redactor.redact(tag) for tag in schedule.tags],
        cron=schedule.cron,
        timezone=schedule.timezone,
        catchup=schedule.catchup,
        state=schedule.state,
        created_at=rfc3339(schedule.created_at),
        created_by=actor_view(schedule.created_by),
        next_at=rfc3339(schedule.next_at),
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
