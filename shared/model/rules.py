"""Rules that look at more than one field (the job language spec, Job and Task)."""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from shared.model.checks import faults_of, text_fault
from shared.model.fields import Role
from shared.model.language import (
    MAX_DEPTH,
    Defaults,
    Each,
    Job,
    JobBody,
    Mount,
    Parallel,
    Permission,
    SmallTask,
    SubJob,
    Task,
    kind_of,
)
from shared.model.plans import ListPlan, MapPlan, Plan, StructPlan, TextPlan, plan_of
from shared.model.problems import Fault, Path, path_text

_COMPOSITES: Final = ("parallel", "each", "subjob")
_CONTAINER_ONLY: Final = (
    "image",
    "cmd",
    "entrypoint",
    "run",
    "env",
    "queue",
    "pre",
    "post",
    "mounts",
    "retry",
    "limits",
    "timeout",
)
_STARTERS: Final = ("run", "cmd", "entrypoint", "image")


class Found(NamedTuple):
    """A broken rule. Moot where no value could be had at one of `unless` (if none: at `path`)."""

    path: Path
    message: str
    unless: tuple[Path, ...] = ()

    def moot(self, lost: Callable[[Path], bool]) -> bool:
        """Whether it only follows from a fault that is reported anyway."""
        return any(map(lost, self.unless or (self.path,)))


class _Scope(NamedTuple):
    defaults: Defaults | None
    depth: int = 0

    def deeper(self) -> "_Scope":
        return self._replace(depth=self.depth + 1)


def job_rules(job: Job, *, scheduled: bool) -> Iterator[Found]:
    """What is wrong with a job beyond its single values."""
    if scheduled and job.schedule is None:
        yield Found(("schedule",), "required for a scheduled job")
    if not scheduled and job.schedule is not None:
        yield Found(("schedule",), "only on POST /scheduled-jobs")
    for index, permission in enumerate(job.permissions):
        yield from _permission(permission, ("permissions", index))
    for index, task in enumerate(job.tasks):
        if not task.name.strip():
            yield Found(("tasks", index, "name"), "required")
    yield from _body(job, (), 0)


def container_rules(task: SmallTask, path: Path = ()) -> Iterator[Found]:
    """What a container task must have; `path` leads to it."""
    if not any(getattr(task, name) for name in _STARTERS):
        missing = "nothing to do: give it run, cmd, entrypoint or image"
        yield Found(path, missing, tuple((*path, name) for name in (*_STARTERS, *_COMPOSITES)))
    yield from _files(list(task.files), (*path, "files"))


def _body(body: JobBody, path: Path, depth: int) -> Iterator[Found]:
    scope = _Scope(body.defaults, depth)
    for index, task in enumerate(body.tasks):
        yield from _task(task, (*path, "tasks", index), scope)


def _permission(permission: Permission, path: Path) -> Iterator[Found]:
    if bool(permission.user) == bool(permission.role):
        both = ((*path, "user"), (*path, "role"))
        yield Found(path, "needs exactly one of user and role", both)


def _task(task: Task, path: Path, scope: _Scope) -> Iterator[Found]:
    if kind_of(task) == "container":
        yield from container_rules(task, path)
        yield from _retry(task, path, scope.defaults)
        yield from _mounts(task.mounts, (*path, "mounts"))
        yield from _companions(task, path)
    else:
        yield from _composite(task, path, scope)


def _companions(task: Task, path: Path) -> Iterator[Found]:
    companions: tuple[tuple[str, Sequence[SmallTask]], ...] = (
        ("pre", task.pre),
        ("post", task.post),
        ("sidecars", task.sidecars),
    )
    for name, small_tasks in companions:
        for index, small in enumerate(small_tasks):
            yield from container_rules(small, (*path, name, index))


def _composite(task: Task, path: Path, scope: _Scope) -> Iterator[Found]:
    kinds = [name for name in _COMPOSITES if getattr(task, name) is not None]
    for name in kinds[1:]:
        message = f"a task can be one of parallel, each and subjob, and this has {kinds[0]} too"
        yield Found((*path, name), message)
    for name in _CONTAINER_ONLY:
        if not _is_empty(getattr(task, name)):
            yield Found((*path, name), f"not allowed beside {kinds[0]}")
    if scope.depth >= MAX_DEPTH:
        yield Found((*path, kinds[0]), f"nested more than {MAX_DEPTH} deep")
    yield from _inside(task.parallel, (*path, "parallel"), scope.deeper())
    yield from _inside(task.each, (*path, "each"), scope.deeper())
    yield from _inside(task.subjob, (*path, "subjob"), scope.deeper())


def _inside(
    composite: Parallel | Each | SubJob | None, path: Path, scope: _Scope
) -> Iterator[Found]:
    if isinstance(composite, SubJob):
        yield from _body(composite, path, scope.depth)
    elif isinstance(composite, Parallel):
        for index, task in enumerate(composite.tasks):
            yield from _task(task, (*path, "tasks", index), scope)
    elif composite is not None and composite.task is not None:
        yield from _task(composite.task, (*path, "task"), scope)


def _is_empty(value: Any) -> bool:
    return not value or value == type(value)()


def _retry(task: Task, path: Path, defaults: Defaults | None) -> Iterator[Found]:
    if task.retry is None or _is_empty(task.retry) or task.retry.limit is not None:
        return
    if defaults is None or defaults.retry is None or defaults.retry.limit is None:
        yield Found((*path, "retry", "limit"), "required, here or in the job's defaults")


def _mounts(mounts: Sequence[Mount], path: Path) -> Iterator[Found]:
    taken: set[str] = set()
    for index, mount in enumerate(mounts):
        at = (*path, index)
        if mount.type == "bind" and not mount.source:
            yield Found((*at, "source"), "required for a bind mount")
        elif mount.type == "bind" and not mount.source.startswith("/"):
            yield Found((*at, "source"), "must be an absolute path of the host")
        elif mount.type in ("volume", "tmpfs") and mount.source:
            yield Found((*at, "source"), f"a {mount.type} mount has no source")
        target = posixpath.normpath(mount.target) if mount.target else ""
        if target and target in taken:
            yield Found((*at, "target"), "another mount has the same target")
        taken.add(target)


def _files(names: Sequence[str], path: Path) -> Iterator[Found]:
    """Two names must not be the same file, nor one a folder of another."""
    taken = {posixpath.normpath(name): name for name in reversed(names)}
    for name in names:
        place = posixpath.normpath(name)
        if taken[place] != name:
            yield Found((*path, name), f"the same file as {taken[place]}")
        elif any(parent in taken for parent in _parents(place)):
            yield Found((*path, name), "one of its folders is a file here too")


def _parents(place: str) -> Iterator[str]:
    while place := posixpath.dirname(place):
        if place == "/":
            return
        yield place


_INNER: Final = (Parallel, Each, SubJob)


def validate_evaluated(task: Task) -> list[Fault]:
    """What is wrong with an evaluated task: what a template's value can break, and nothing else.

    A text that came out empty counts as absent. Tasks inside a composite are not looked at.
    """
    found = list(_struct(task, plan_of(Task), ()))
    if kind_of(task) == "container":
        found += [(rule.path, rule.message) for rule in container_rules(task)]
    return [Fault(path_text(path), message) for path, message in found]


def _struct(value: Any, plan: StructPlan, path: Path) -> Iterator[tuple[Path, str]]:
    for name, field in plan.fields.items():
        yield from _value(getattr(value, field.attribute), field.plan, (*path, name))


def _value(value: Any, plan: Plan, path: Path) -> Iterator[tuple[Path, str]]:
    if not value:
        return
    if isinstance(plan, TextPlan):
        yield from _text(value, plan, path)
    elif isinstance(plan, ListPlan):
        for index, item in enumerate(value):
            yield from _value(item, plan.item, (*path, index))
    elif isinstance(plan, MapPlan):
        for key, text in value.items():
            yield from _value(text, plan.value, (*path, key))
    elif isinstance(plan, StructPlan) and plan.cls not in _INNER:
        yield from _struct(value, plan, path)


def _text(value: str, plan: TextPlan, path: Path) -> Iterator[tuple[Path, str]]:
    if plan.role is not Role.TEMPLATE:
        return
    if fault := text_fault(value):
        yield path, fault
    else:
        for message in faults_of(value, plan.rules):
            yield path, message
