"""Applies a job's defaults to its tasks (job language spec, Job)."""

from typing import Any, TypeVar

import msgspec

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
