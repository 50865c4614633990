"""Creates tasks and jobs from definitions, defaults filled in.

Ids follow from their cause: creating the same thing twice makes one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import msgspec

from shared.ids import derived_id, seed_of
from shared.model import language
from shared.model.declared_secrets import hidden_values, secret_values
from shared.model.documents import Intent, JobDocument, Micros, TaskDocument
from shared.model.language import (
    Defaults,
    Each,
    Limits,
    Parallel,
    Retry,
    TaskDefinition,
    kind_of_task,
)
from shared.model.states import TaskKind
from shared.redaction import KEY_PATTERNS, Redactor

MAX_NAME = 1024
"""Characters kept of the name of a job, and of an evaluated one of a task: it is in lists, webhooks and errors."""

BEGIN = "begin"
FINISH = "finish"
RESTART = "restart"
EVALUATE = "evaluate"
EXPAND = "expand"
ENDED_INTENT = "ended"
HOOK = "hook"
ABANDON = "abandon"
DELETE = "delete"


def intent(do: str, at: Micros, **args: Any) -> Intent:
    """Return an intent named after what it does, due at once."""
    suffix = "".join(f":{value}" for value in args.values())
    return Intent(id=do + suffix, do=do, at=at, args=args)


def task_id(job_id: str, restarts: int, path: str, attempt: int) -> str:
    """Return the id of one attempt at one place of a job."""
    return derived_id("task", job_id, restarts, path, attempt)


def found_by(definition: language.JobDefinition, values: Collection[str]) -> dict[str, Any]:
    """Return the fields that a job or a schedule is found and counted by, which rest as they may be shown: without
    the secrets `values`."""
    shown = Redactor(values)
    return {
        "name": shown.redact_beginning(definition.name, MAX_NAME),
        "description": shown.redact(definition.description or ""),
        "tags": [shown.redact(tag) for tag in definition.tags or ()],
    }


def new_job(
    definition: language.JobDefinition,
    id: str,
    at: Micros,
    *,
    keys: Sequence[str] = KEY_PATTERNS,
    inherited: Sequence[str] = (),
    **more: Any,
) -> JobDocument:
    """Return the job that a user's definition makes. `keys`: what keys say that a value is secret; `inherited`: what
    must not be shown of the jobs that it comes from."""
    values = {*inherited, *hidden_values(definition, keys)}
    fields: dict[str, Any] = {"root_id": id, "permissions": list(definition.permissions or ())}
    return JobDocument(
        id=id,
        definition=definition,
        **found_by(definition, values),
        task_count=len(definition.tasks),
        created_at=at,
        inherited_secrets=sorted(values.difference(secret_values(definition))),
        then=[intent(BEGIN, at)],
        **{**fields, **more},
    )


def may_come_again(job: JobDocument) -> bool:
    """Return whether a job's id follows from what it is made for (a key, a firing, a task): whoever is late makes the
    same one again."""
    return bool(job.body_hash or job.schedule or job.parent_id or job.detached_from)


def kept_tasks(job: JobDocument, tasks: Sequence[TaskDocument]) -> list[TaskDocument]:
    """Return copies of tasks of another job that count as done in `job`: their results, not their logs."""
    ids = {task.id: derived_id("kept", job.id, task.id) for task in tasks}
    return [
        msgspec.structs.replace(
            task,
            id=ids[task.id],
            then=[],
            job_id=job.id,
            root_id=job.id,
            parent_id=derived_id("kept", job.id, task.parent_id) if task.parent_id else None,
            restarts=0,
            open=False,
            active=False,
            run=0,
            log_parts=None,
            slot_of=None,
            slot=None,
            window_of=None,
            window=None,
        )
        for task in tasks
    ]


def _task(
    job: JobDocument, definition: TaskDefinition, path: str, restarts: int, at: Micros, **more: Any
) -> TaskDocument:
    id = task_id(job.id, restarts, path, attempt=1)
    return TaskDocument(
        id=id,
        job_id=job.id,
        root_id=job.root_id,
        path=path,
        restarts=restarts,
        kind=language.kind_of_task(definition),
        name=definition.name or "",
        definition=definition,
        seed=seed_of(id),
        created_at=at,
        var=definition.var,
        **more,
    )


def top_level_task(job: JobDocument, position: int, restarts: int, at: Micros) -> TaskDocument:
    """Return the first attempt at the task at `position` (from 1) of a job."""
    definition = apply_defaults(job.definition.tasks[position - 1], job.definition.defaults)
    definition = with_name(definition, position)
    task = _task(job, definition, str(position), restarts, at, position=position, depth=job.depth)
    return with_window(task) if needs_window(job, task) else task


def child_task(
    job: JobDocument,
    parent: TaskDocument,
    definition: language.TaskDefinition,
    index: int,
    scope: dict[str, Any],
    at: Micros,
) -> TaskDocument:
    """Return the first attempt at child `index` (from 0) of a composite."""
    task = _task(
        job,
        with_name(definition, index + 1),
        f"{parent.path}/{index}",
        parent.restarts,
        at,
        position=parent.position,
        index=index,
        depth=parent.depth + 1,
        parent_id=parent.id,
        scope=scope,
    )
    return with_window(task)


def with_name(definition: language.TaskDefinition, number: int) -> language.TaskDefinition:
    """Return the definition with a name: `task 3` where the user left it out."""
    return (
        definition
        if definition.name
        else msgspec.structs.replace(definition, name=f"task {number}")
    )


def needs_window(job: JobDocument, task: TaskDocument) -> bool:
    """Return whether a task counts against its root job's window: all do but the root's own chain, one at a time."""
    return job.root_id != job.id or task.parent_id is not None


def with_window(task: TaskDocument) -> TaskDocument:
    """Return the task with the window that it counts against: containers of a root share one; composites have one a
    depth, so that those that wait for their children cannot keep these out."""
    key = task.root_id if task.kind == TaskKind.CONTAINER else f"{task.root_id}/{task.depth}"
    return msgspec.structs.replace(task, window_of=key)


def progress_of(position_done: int, task_count: int, share: float = 0.0) -> float:
    """Return a job's progress: completed top-level tasks over all, plus the running one's share, two decimals."""
    if not task_count:
        return 0.0
    return round(min(100.0, (position_done + share / 100.0) / task_count * 100.0), 2)


_Mergeable = TypeVar("_Mergeable", Retry, Limits)


def apply_defaults(task: TaskDefinition, defaults: Defaults | None) -> TaskDefinition:
    """Return the task with what it does not set itself taken from its job's defaults.

    `retry` and `limits` merge field by field. The tasks inside parallel and each get them too; a
    sub-job has only its own defaults, and a composite itself takes none.
    """
    if defaults is None:
        return task
    kind = kind_of_task(task)
    if kind == TaskKind.CONTAINER:
        return _container(task, defaults)
    if kind == TaskKind.SUBJOB:
        return task
    return msgspec.structs.replace(
        task,
        parallel=_parallel(task.parallel, defaults),
        each=_each(task.each, defaults),
    )


def _parallel(parallel: Parallel | None, defaults: Defaults) -> Parallel | None:
    if parallel is None:
        return None
    inner = [apply_defaults(task, defaults) for task in parallel.tasks]
    return msgspec.structs.replace(parallel, tasks=inner)


def _each(each: Each | None, defaults: Defaults) -> Each | None:
    if each is None or each.task is None:
        return each
    return msgspec.structs.replace(each, task=apply_defaults(each.task, defaults))


def _container(task: TaskDefinition, defaults: Defaults) -> TaskDefinition:
    return msgspec.structs.replace(
        task,
        retry=_merged(task.retry, defaults.retry),
        limits=_merged(task.limits, defaults.limits),
        timeout=task.timeout or defaults.timeout,
        queue=task.queue or defaults.queue,
        priority=defaults.priority if task.priority is None else task.priority,
    )


def _merged(own: _Mergeable | None, default: _Mergeable | None) -> _Mergeable | None:
    if own is None or default is None:
        return own or default
    unset: dict[str, Any] = {
        name: getattr(default, name)
        for name in own.__struct_fields__
        if getattr(own, name) in (None, "")
    }
    return msgspec.structs.replace(own, **unset)
