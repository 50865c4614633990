"""Views of tasks: the summary for webhooks and events, and the whole task."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared.model import language
from shared.model.documents import LostRunEntry, RunUsage, TaskDocument, TaskReference
from shared.model.states import GOOD, TaskKind
from shared.model.views.redacted import (
    TaskStateText,
    TimeText,
    View,
    redacted,
    redactor_of_task,
    rfc3339,
)
from shared.redaction import Redactor


class TaskSummaryView(View, frozen=True, kw_only=True):
    """A summary of a task."""

    id: str
    job_id: str
    parent_id: str = ""
    position: int
    name: str
    description: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    state: TaskStateText
    progress: float
    created_at: TimeText
    scheduled_at: TimeText = ""
    started_at: TimeText = ""
    completed_at: TimeText = ""
    failed_at: TimeText = ""
    var: str = ""
    result: str = ""
    error: str = ""


class RetryView(View, frozen=True, kw_only=True):
    """Further attempts: how many are allowed (`limit`), and which of them this is (`attempts`)."""

    limit: int
    attempts: int
    initial_delay: str = ""
    scaling_factor: int | float | None = None
    jitter: int | float | None = None


class ParallelView(View, frozen=True, kw_only=True):
    """Tasks that run at the same time, and how many of them are done."""

    tasks: list[language.TaskDefinition]
    completions: int


class EachView(View, frozen=True, kw_only=True):
    """One child for each item; `size` once the list is known."""

    list: str
    var: str
    task: language.TaskDefinition | None = None
    size: int | None = None
    index: int
    """How many children have begun."""
    completions: int
    concurrency: int


class SubJobView(language.SubJob, frozen=True, kw_only=True):
    """A sub-job as it was submitted, with the `id` of the job once that has been created."""

    id: str = ""


class UsageView(View, frozen=True, kw_only=True):
    """The resources that a run used; if `sampled`, the figures are estimates."""

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    sampled: bool


class LostRunView(View, frozen=True, kw_only=True):
    """A run of a task that was lost or handed back, and why; the task ran again."""

    number: int
    node_id: str = ""
    started_at: TimeText = ""
    ended_at: TimeText = ""
    why: str = ""


class TaskRefView(View, frozen=True, kw_only=True):
    """A task, by its id and name."""

    id: str
    name: str


class WaitingView(View, frozen=True, kw_only=True):
    """Why a task does not run yet.

    `reason`: retry, concurrency, window, noWorker, busy, starting, lost or broker. `until`: when it goes on, where that
    is known.
    """

    reason: str
    message: str
    since: TimeText = ""
    until: TimeText = ""
    queue: str = ""


class TaskView(TaskSummaryView, frozen=True, kw_only=True):
    """A whole task. Templates are shown evaluated if they have been, otherwise as submitted."""

    image: str = ""
    run: str = ""
    cmd: list[str] = msgspec.field(default_factory=list)
    entrypoint: list[str] = msgspec.field(default_factory=list)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    files: Mapping[str, str | language.FileTemplate] = msgspec.field(default_factory=dict)
    queue: str = ""
    node_id: str = ""
    path: str = ""
    """Where it stands in its job, such as `2/0`: the same for all attempts."""
    attempt: int = 0
    waiting: WaitingView | None = None
    exit_code: int | None = None
    usage: UsageView | None = None
    runs: list[LostRunView] = msgspec.field(default_factory=list)
    """The newest runs that came to nothing, oldest first."""
    log_incomplete: bool | None = None
    if_: str = msgspec.field(default="", name="if")
    priority: int
    timeout: str = ""
    limits: language.Limits | None = None
    retry: RetryView | None = None
    gpus: str = ""
    workdir: str = ""
    registry: language.Registry | None = None
    mounts: list[language.Mount] = msgspec.field(default_factory=list)
    networks: list[str] = msgspec.field(default_factory=list)
    pre: list[language.SmallTask] = msgspec.field(default_factory=list)
    post: list[language.SmallTask] = msgspec.field(default_factory=list)
    sidecars: list[language.Sidecar] = msgspec.field(default_factory=list)
    parallel: ParallelView | None = None
    each: EachView | None = None
    subjob: SubJobView | None = None
    counts: dict[str, int] | None = None
    """Of a composite: how many children are in each state, each by its newest attempt."""
    abridged: bool = False
    """What it is told to do and its result are left out, because the answer would be too large; its own answer has
    them."""


def task_summary(task: TaskDocument, redactor: Redactor) -> TaskSummaryView:
    """Return a task in short, as webhooks and events tell of it. `redactor`: that of its job."""
    locked, task = task.locked, task.opened()
    redactor = redactor_of_task(task, redactor)
    shown = task.evaluated or task.definition
    return TaskSummaryView(
        id=task.id,
        job_id=task.job_id,
        parent_id=task.parent_id or "",
        position=task.position,
        name=redactor.redact(task.name or shown.name),
        description=redactor.redact(shown.description),
        tags=[redactor.redact(tag) for tag in shown.tags],
        state=task.state,
        progress=task.progress,
        created_at=rfc3339(task.created_at),
        scheduled_at=rfc3339(task.scheduled_at),
        started_at=rfc3339(task.started_at),
        completed_at=rfc3339(task.completed_at),
        failed_at=rfc3339(task.failed_at),
        var=task.var or shown.var,
        result=redactor.redact(task.result or ""),
        error=locked or redactor.redact(task.error or ""),
    )


def task_view(
    task: TaskDocument,
    redactor: Redactor,
    *,
    counts: Mapping[str, int] | None = None,
    begun: int = 0,
    stored_parts: int | None = None,
    waiting: WaitingView | None = None,
    abridged: bool = False,
) -> TaskView:
    """Return all of a task.

    `counts`: how many children of a composite are in each state; `begun`: how many have had their turn.
    `stored_parts`: how many parts of the counted run's log are stored, None where that was not asked.
    """
    summary, task = task_summary(task, redactor), task.opened()
    redactor = redactor_of_task(task, redactor)
    shown = redacted(task.evaluated or task.definition, redactor)
    completions = sum((counts or {}).get(state, 0) for state in GOOD)
    composite = task.kind in (TaskKind.PARALLEL, TaskKind.EACH)
    return TaskView(
        **msgspec.structs.asdict(summary),
        image=shown.image,
        run=shown.run,
        cmd=shown.cmd,
        entrypoint=shown.entrypoint,
        env=shown.env,
        files=shown.files,
        queue=_queue(task, shown),
        node_id=task.node_id or "",
        path=task.path,
        attempt=task.attempt,
        waiting=waiting,
        exit_code=task.exit_code,
        usage=_usage(task.usage),
        runs=[_lost_run(each, redactor) for each in task.runs],
        log_incomplete=_log_incomplete(task, stored_parts),
        if_=shown.if_,
        priority=task.priority,
        timeout=shown.timeout,
        limits=shown.limits,
        retry=_retry(task, shown.retry),
        gpus=shown.gpus,
        workdir=shown.workdir,
        registry=shown.registry,
        mounts=shown.mounts,
        networks=shown.networks,
        pre=shown.pre,
        post=shown.post,
        sidecars=shown.sidecars,
        parallel=_parallel(shown.parallel, completions),
        each=_each(task, shown.each, completions, begun),
        subjob=_subjob(task, shown.subjob),
        counts=dict(counts or {}) if composite else None,
        abridged=abridged,
    )


def task_ref(task: TaskReference | None, redactor: Redactor) -> TaskRefView | None:
    """Return a task by its id and name."""
    return None if task is None else TaskRefView(id=task.id, name=redactor.redact(task.name))


def _queue(task: TaskDocument, shown: language.TaskDefinition) -> str:
    return (task.queue or shown.queue) if task.kind == TaskKind.CONTAINER else ""


def _lost_run(run: LostRunEntry, redactor: Redactor) -> LostRunView:
    return LostRunView(
        number=run.number,
        node_id=run.node_id,
        started_at=rfc3339(run.started_at or None),
        ended_at=rfc3339(run.ended_at or None),
        why=redactor.redact(run.why),
    )


def _usage(usage: RunUsage | None) -> UsageView | None:
    if usage is None:
        return None
    return UsageView(
        wall_seconds=usage.wall_seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_memory_bytes=usage.peak_memory_bytes,
        sampled=usage.sampled,
    )


def _log_incomplete(task: TaskDocument, stored_parts: int | None) -> bool | None:
    if task.log_parts is None or stored_parts is None:
        return None
    return stored_parts < task.log_parts


def _retry(task: TaskDocument, retry: language.Retry | None) -> RetryView | None:
    if retry is None:
        return None
    return RetryView(
        limit=retry.limit or language.DEFAULT_RETRY_LIMIT,
        attempts=task.attempt - 1,
        initial_delay=retry.initial_delay,
        scaling_factor=retry.scaling_factor,
        jitter=retry.jitter,
    )


def _parallel(parallel: language.Parallel | None, completions: int) -> ParallelView | None:
    if parallel is None:
        return None
    return ParallelView(tasks=parallel.tasks, completions=completions)


def _each(
    task: TaskDocument, each: language.Each | None, completions: int, begun: int
) -> EachView | None:
    if each is None:
        return None
    return EachView(
        list=each.list,
        var=each.variable,
        task=each.task,
        size=task.size,
        index=begun,
        completions=completions,
        concurrency=each.concurrency or 0,
    )


def _subjob(task: TaskDocument, subjob: language.SubJob | None) -> SubJobView | None:
    if subjob is None:
        return None
    return SubJobView(id=task.subjob_id or "", **msgspec.structs.asdict(subjob))
