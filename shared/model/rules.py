"""Rules that look at more than one field (the job language spec, Job and Task)."""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from shared.model.checks import (
    LONGEST_FILE_PATH,
    container_path,
    own_file_problem,
    problems_of,
    text_problem,
)
from shared.model.declared_secrets import secret_values
from shared.model.language import (
    MAX_COMPOSITE_DEPTH,
    Defaults,
    Each,
    JobBody,
    JobDefinition,
    Mount,
    Parallel,
    Permission,
    ScheduleDefinition,
    SmallTask,
    SubJob,
    TaskDefinition,
    kind_of_task,
)
from shared.model.plans import (
    FilePlan,
    ListPlan,
    MapPlan,
    Plan,
    StructPlan,
    TextPlan,
    TextRole,
    plan_of,
)
from shared.model.problems import Path, Problem, path_text
from shared.model.states import TaskKind

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
_ALONE: Final = ("host", "none")
_BIND_OPTIONS: Final = ("readonly", "ro", "propagation", "bind-propagation")
_WHEN: Final[tuple[Path, ...]] = (("schedule", "cron"), ("schedule", "at"))
_SECRETS: Final[Path] = ("secrets",)
_STARTERS: Final = ("run", "cmd", "entrypoint", "image")


MAX_SECRETS: Final = 1000
MAX_SECRET_BYTES: Final = 64 * 1024
MAX_INHERITED_BYTES: Final = 2 * MAX_SECRET_BYTES
"""Of all that must not be shown of a sub-job: its own secrets, and those of the jobs above it."""


class RuleProblem(msgspec.Struct, frozen=True):
    """A broken rule. Moot where no value could be had at one of `unless` (if none: at `path`)."""

    path: Path
    message: str
    unless: tuple[Path, ...] = ()

    def moot(self, lost: Callable[[Path], bool]) -> bool:
        """Return whether it only follows from a problem that is reported anyway."""
        return any(map(lost, self.unless or (self.path,)))


class _Scope(msgspec.Struct, frozen=True):
    defaults: Defaults | None
    depth: int = 0

    def deeper(self) -> "_Scope":
        return msgspec.structs.replace(self, depth=self.depth + 1)


def job_rules(job: JobDefinition, *, scheduled: bool) -> Iterator[RuleProblem]:
    """Yield what is wrong with a job beyond its single values."""
    if scheduled and job.schedule is None:
        yield RuleProblem(("schedule",), "required for a scheduled job")
    if not scheduled and job.schedule is not None:
        yield RuleProblem(("schedule",), "only on POST /scheduled-jobs")
    if job.schedule is not None:
        yield from _schedule(job.schedule)
    for index, permission in enumerate(job.permissions):
        yield from _permission(permission, ("permissions", index))
    for index, task in enumerate(job.tasks):
        if not task.name.strip():
            yield RuleProblem(("tasks", index, "name"), "required")
    own = list(_body(job, (), 0))
    yield from own
    if not any(rule.path == _SECRETS for rule in own):
        yield from _all_secrets(secret_values(job))


def _all_secrets(values: Sequence[str]) -> Iterator[RuleProblem]:
    """Whatever looks for them in texts has to know all of them, wherever in the job they are."""
    if len(values) > MAX_SECRETS or size_of_secrets(values) > MAX_SECRET_BYTES:
        message = f"at most {MAX_SECRETS:,} values of 64 KiB in all, with those of registries, webhooks and sub-jobs"
        yield RuleProblem(_SECRETS, message)


def size_of_secrets(values: Iterable[str]) -> int:
    """Return how many bytes values have in all."""
    return sum(len(value.encode("utf-8", "surrogatepass")) for value in values)


def _schedule(schedule: ScheduleDefinition) -> Iterator[RuleProblem]:
    if not schedule.cron and not schedule.at:
        yield RuleProblem(("schedule", "cron"), "required (or at, to fire once)", _WHEN)
    if schedule.cron and schedule.at:
        yield RuleProblem(("schedule",), "can't have both cron and at", _WHEN)


def container_rules(task: SmallTask, path: Path = ()) -> Iterator[RuleProblem]:
    """Yield what a container task must have; `path` leads to it."""
    if not any(getattr(task, name) for name in _STARTERS):
        missing = "nothing to do: give it run, cmd, entrypoint or image"
        yield RuleProblem(
            path, missing, tuple((*path, name) for name in (*_STARTERS, *_COMPOSITES))
        )
    yield from _files(task.file_names, (*path, "files"))


def _body(body: JobBody, path: Path, depth: int) -> Iterator[RuleProblem]:
    scope = _Scope(body.defaults, depth)
    if len(body.secrets) > MAX_SECRETS:
        yield RuleProblem((*path, "secrets"), f"at most {MAX_SECRETS:,} secrets")
    elif size_of_secrets(body.secrets.values()) > MAX_SECRET_BYTES:
        yield RuleProblem((*path, "secrets"), "at most 64 KiB of values")
    for index, task in enumerate(body.tasks):
        yield from _task(task, (*path, "tasks", index), scope)


def _permission(permission: Permission, path: Path) -> Iterator[RuleProblem]:
    if bool(permission.user) == bool(permission.role):
        both = ((*path, "user"), (*path, "role"))
        yield RuleProblem(path, "needs exactly one of user and role", both)


def _task(task: TaskDefinition, path: Path, scope: _Scope) -> Iterator[RuleProblem]:
    if kind_of_task(task) == TaskKind.CONTAINER:
        yield from container_rules(task, path)
        yield from _retry(task, path, scope.defaults)
        yield from _mounts(task.mounts, (*path, "mounts"))
        yield from _networks(task, (*path, "networks"))
        yield from _own_files(task, (*path, "files"))
        yield from _companions(task, path)
    else:
        yield from _composite(task, path, scope)


def _companions(task: TaskDefinition, path: Path) -> Iterator[RuleProblem]:
    companions: tuple[tuple[str, Sequence[SmallTask]], ...] = (
        ("pre", task.pre),
        ("post", task.post),
        ("sidecars", task.sidecars),
    )
    for name, small_tasks in companions:
        for index, small in enumerate(small_tasks):
            yield from container_rules(small, (*path, name, index))


def _composite(task: TaskDefinition, path: Path, scope: _Scope) -> Iterator[RuleProblem]:
    kinds = [name for name in _COMPOSITES if getattr(task, name) is not None]
    for name in kinds[1:]:
        message = f"a task can be one of parallel, each and subjob, and this has {kinds[0]} too"
        yield RuleProblem((*path, name), message)
    for name in _CONTAINER_ONLY:
        if not _is_empty(getattr(task, name)):
            yield RuleProblem((*path, name), f"not allowed together with {kinds[0]}")
    if scope.depth >= MAX_COMPOSITE_DEPTH:
        yield RuleProblem((*path, kinds[0]), f"nested more than {MAX_COMPOSITE_DEPTH} levels deep")
    yield from _inside(task.parallel, (*path, "parallel"), scope.deeper())
    yield from _inside(task.each, (*path, "each"), scope.deeper())
    yield from _inside(task.subjob, (*path, "subjob"), scope.deeper())


def _inside(
    composite: Parallel | Each | SubJob | None, path: Path, scope: _Scope
) -> Iterator[RuleProblem]:
    if isinstance(composite, SubJob):
        yield from _body(composite, path, scope.depth)
    elif isinstance(composite, Parallel):
        for index, task in enumerate(composite.tasks):
            yield from _task(task, (*path, "tasks", index), scope)
    elif composite is not None and composite.task is not None:
        yield from _task(composite.task, (*path, "task"), scope)


def _is_empty(value: Any) -> bool:
    return not value or value == type(value)()


def _retry(task: TaskDefinition, path: Path, defaults: Defaults | None) -> Iterator[RuleProblem]:
    if task.retry is None or _is_empty(task.retry) or task.retry.limit is not None:
        return
    if defaults is None or defaults.retry is None or defaults.retry.limit is None:
        yield RuleProblem((*path, "retry", "limit"), "required, here or in the job's defaults")


def _mounts(mounts: Sequence[Mount], path: Path) -> Iterator[RuleProblem]:
    taken: set[str] = set()
    for index, mount in enumerate(mounts):
        at = (*path, index)
        if mount.type == "bind" and not mount.source:
            yield RuleProblem((*at, "source"), "required for a bind mount")
        elif mount.type == "bind" and not mount.source.startswith("/"):
            yield RuleProblem((*at, "source"), "must be an absolute path on the host")
        elif mount.type in ("volume", "tmpfs") and mount.source:
            yield RuleProblem((*at, "source"), f"a {mount.type} mount can't have a source")
        yield from _bind_options(mount, (*at, "opts"))
        target = container_path(mount.target) if mount.target else ""
        if target and target in taken:
            yield RuleProblem((*at, "target"), "another mount has the same target")
        taken.add(target)


def _bind_options(mount: Mount, path: Path) -> Iterator[RuleProblem]:
    for name in mount.opts:
        if mount.type == "bind" and name.lower() not in _BIND_OPTIONS:
            message = "a bind mount supports only the options readonly and propagation"
            yield RuleProblem((*path, name), message)


def _networks(task: TaskDefinition, path: Path) -> Iterator[RuleProblem]:
    for index, name in enumerate(task.networks):
        if name in _ALONE and (len(set(task.networks)) > 1 or task.sidecars):
            message = f"{name} can't be combined with other networks or with sidecars"
            yield RuleProblem((*path, index), message)


def _own_files(task: TaskDefinition, path: Path) -> Iterator[RuleProblem]:
    for name in task.file_names if task.workdir else ():
        if problem := own_file_problem(f"{task.workdir}/{name}"):
            yield RuleProblem((*path, name), problem, ((*path, name), (*path[:-1], "workdir")))


def _files(names: Sequence[str], path: Path) -> Iterator[RuleProblem]:
    """Two names must not be the same file, nor one a folder of another."""
    taken = {posixpath.normpath(name): name for name in reversed(names)}
    for name in names:
        place = posixpath.normpath(name)
        if taken[place] != name:
            yield RuleProblem((*path, name), f"the same file as {taken[place]}")
        elif any(parent in taken for parent in _parents(place)):
            yield RuleProblem((*path, name), "one of its parent folders is also a file here")


def _parents(place: str) -> Iterator[str]:
    """Yield the folders above a file; of a path that is too long for one, none: each is as long as the path."""
    if len(place) > LONGEST_FILE_PATH:
        return
    while place := posixpath.dirname(place):
        if place == "/":
            return
        yield place


_INNER: Final = (Parallel, Each, SubJob)


def validate_evaluated(task: TaskDefinition) -> list[Problem]:
    """Return what is wrong with an evaluated task: what a template's value can break, and nothing else.

    A text that came out empty counts as absent. Tasks inside a composite are not looked at.
    """
    found = list(_struct(task, plan_of(TaskDefinition), ()))
    if kind_of_task(task) == TaskKind.CONTAINER:
        found += [(rule.path, rule.message) for rule in container_rules(task)]
    return [Problem(path_text(path), message) for path, message in found]


def _struct(value: Any, plan: StructPlan, path: Path) -> Iterator[tuple[Path, str]]:
    for name, field in plan.fields.items():
        yield from _value(getattr(value, field.attribute), field.plan, (*path, name))


def _value(value: Any, plan: Plan, path: Path) -> Iterator[tuple[Path, str]]:
    if not value:
        return
    if isinstance(plan, TextPlan | FilePlan):
        yield from _text(value, plan, path)
    elif isinstance(plan, ListPlan):
        for index, item in enumerate(value):
            yield from _value(item, plan.item, (*path, index))
    elif isinstance(plan, MapPlan):
        for key, text in value.items():
            yield from _value(text, plan.value, (*path, key))
    elif isinstance(plan, StructPlan) and plan.cls not in _INNER:
        yield from _struct(value, plan, path)


def _text(value: str, plan: TextPlan | FilePlan, path: Path) -> Iterator[tuple[Path, str]]:
    plan = plan.template if isinstance(plan, FilePlan) else plan
    if plan.role is not TextRole.TEMPLATE:
        return
    if problem := text_problem(value):
        yield path, problem
    else:
        for message in problems_of(value, plan.rules):
            yield path, message
