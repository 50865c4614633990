"""Renders a task's templates, once, just before it runs (engine spec, States: Evaluated once)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from coordinator.engine import transitions
from coordinator.engine.new_documents import ENDED_INTENT, EXPAND, MAX_NAME, intent
from shared import expressions
from shared.expressions import Budget, ExpressionError, Texts
from shared.expressions.values import type_name
from shared.model import language
from shared.model.checks import has_template
from shared.model.declared_secrets import keyed_values
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    Micros,
    ScheduleRef,
    TaskDocument,
)
from shared.model.language import (
    Each,
    JobBody,
    JobDefinition,
    Parallel,
    SmallTask,
    SubJob,
    TaskDefinition,
)
from shared.model.plans import ListPlan, MapPlan, Plan, StructPlan, TextPlan, TextRole, plan_of
from shared.model.queues import DEFAULT_QUEUE
from shared.model.rules import validate_evaluated
from shared.model.states import TaskKind, TaskState
from shared.model.views.redacted import redactor_of_job, rfc3339, secrets_of
from shared.redaction import Redactor

T = TypeVar("T")

MAX_EVALUATED = 2 * 1024 * 1024
"""Bytes, as JSON, that an evaluated task may take: it travels as one message."""

MAX_COPIES = 1024 * 1024 * 1024
"""Bytes, as JSON, of loop variables that the children of one composite may have copies of, in all."""

MAX_ERROR = 32 * 1024
"""Characters of an error that are kept; more than the end of a log that one may quote."""


class Evaluator:
    """Evaluates with one scope, clock and seed, so that doing it again gives the same; all out of one budget."""

    def __init__(self, scope: Mapping[str, object], at: Micros, seed: int, budget: Budget) -> None:
        self.budget = budget
        self._scope, self._at, self._seed = scope, at, seed

    @functools.cached_property
    def _evaluation(self) -> expressions.Evaluation:
        now = datetime.fromtimestamp(self._at / MICROS_PER_SECOND, UTC)
        return expressions.Evaluation(self._scope, now=now, seed=self._seed, budget=self.budget)

    def render(self, template: str) -> str:
        """Return the text that `template` becomes; raises `ExpressionError`."""
        return expressions.render_within(self._evaluation, template)

    def value(self, expression: str) -> object:
        """Return the value of an expression, bare or in braces; raises `ExpressionError`."""
        return expressions.field_within(self._evaluation, expression)

    def flag(self, expression: str) -> bool:
        """Return the value of a webhook's `if`; raises `ExpressionError` also where it is neither true nor false."""
        answer = self.value(expression)
        if not isinstance(answer, bool):
            raise ExpressionError(
                f"a webhook's `if` must be true or false, not {type_name(answer)}"
            )
        return answer

    def condition(self, expression: str) -> bool:
        """Return whether an `if` lets its task run: any text but exactly `false`, trimmed."""
        return expressions.format_value(self.value(expression), self.budget).strip() != "false"


def scope_for(job: JobDocument, loops: Mapping[str, Any], results: Texts) -> dict[str, object]:
    """Return the names in scope in a task of `job`. A loop variable may hide any of the others."""
    return {
        "inputs": Texts(job.definition.inputs or {}),
        "secrets": Texts(job.definition.secrets or {}),
        "tasks": results,
        "job": Texts({"id": job.id, "name": job.definition.name}),
        "schedule": Texts(_schedule_scope(job.schedule)),
        **loops,
    }


def _schedule_scope(schedule: ScheduleRef | None) -> dict[str, str]:
    """Return what a job may know of the firing that it stands for: nothing where no schedule made it."""
    if schedule is None:
        return {}
    times = {"time": schedule.time, "previous": schedule.previous}
    return {name: rfc3339(at) for name, at in times.items() if at}


def vars_of(definition: language.TaskDefinition, budget: Budget) -> tuple[str, ...] | None:
    """Return the names of the `tasks.<var>` that a task's templates may read: () none, None any."""
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    render_task(definition, collect)
    if definition.subjob is not None:
        render_subjob(definition.subjob, collect)
    expressions_too = [definition.if_] if definition.if_ else []
    if definition.each is not None:
        expressions_too.append(definition.each.list)
    return wanted_vars(texts, expressions_too, budget)


def wanted_vars(
    templates: Iterable[str], fields: Iterable[str], budget: Budget
) -> tuple[str, ...] | None:
    """Return the names of the `tasks.<var>` that `templates` may read, and `fields`, which are expressions, bare or in
    braces: () none, None any."""
    found = [expressions.names_in(text, budget) for text in templates if "{{" in text]
    found += [expressions.names_in_field(text, budget) for text in fields]
    wanted: set[str] = set()
    for names in found:
        keys = None if names.whole else names.keys.get("tasks", frozenset())
        if keys is None:
            return None
        wanted |= keys
    return tuple(sorted(wanted))


def with_evaluation(
    task: TaskDocument, scope: Mapping[str, object], at: Micros, budget: Budget
) -> TaskDocument:
    """Return `task`, whose turn has come, as what it becomes: PENDING with its templates evaluated, SKIPPED, FAILED,
    or RUNNING for a composite, which is to be expanded. Its name and its error are not redacted yet."""
    evaluator = Evaluator(scope, at, task.seed, budget)
    try:
        if task.definition.if_ and not within_field("if", evaluator.condition, task.definition.if_):
            return with_end(_named(task, evaluator), TaskState.SKIPPED, at)
        definition = render_task(task.definition, evaluator.render)
        if definition.parallel is not None:
            _check_copies("parallel", task.scope, len(definition.parallel.tasks))
    except ExpressionError as error:
        task = _named(task, evaluator)
        return with_end(task, TaskState.FAILED, at, said(error))
    if problem := evaluated_problem(definition, task.scope):
        task = msgspec.structs.replace(task, name=definition.name or task.name)
        return with_end(task, TaskState.FAILED, at, problem)
    if task.kind == TaskKind.CONTAINER:
        return with_definition(task, definition, at)
    return with_beginning(task, definition, at)


def waiting_names(
    job: JobDocument, tasks: Sequence[TaskDocument], at: Micros, budget: Budget
) -> dict[str, str]:
    """Return the names of tasks of `job` that wait, by their ids, as far as no other task's result is in them."""
    names: dict[str, str] = {}
    for task in tasks:
        scope = scope_for(job, task.scope, Texts({}))
        named = _named(task, Evaluator(scope, at, task.seed, budget))
        names[task.id] = kept_name(job, named.name)
    return names


def _named(task: TaskDocument, evaluator: Evaluator) -> TaskDocument:
    """Return a task that is not to run, or not yet, with its name evaluated, where that can be."""
    try:
        name = evaluator.render(task.definition.name)
    except ExpressionError:
        return task
    return msgspec.structs.replace(task, name=name or task.name)


def within_field(name: str, evaluate: Callable[[str], T], text: str) -> T:
    """Return what `text` gives, a fault of it knowing the name of the field."""
    try:
        return evaluate(text)
    except ExpressionError as error:
        error.add_note(name)
        raise


def said(error: Exception) -> str:
    """Return what an error says, after the field that it is about: `env.PATH: …`."""
    return ": ".join(
        filter(None, [".".join(reversed(getattr(error, "__notes__", ()))), str(error)])
    )


def rendered(
    template: str, scope: Mapping[str, object], at: Micros, seed: int, budget: Budget
) -> str:
    """Return the text that one template becomes."""
    return Evaluator(scope, at, seed, budget).render(template)


def subjob_of(
    subjob: language.SubJob,
    scope: Mapping[str, object],
    at: Micros,
    seed: int,
    budget: Budget,
) -> language.JobDefinition:
    """Return the job that a task starts."""
    return render_subjob(subjob, Evaluator(scope, at, seed, budget).render)


def evaluated_problem(definition: language.TaskDefinition, loops: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an evaluated task, or None."""
    if problems := validate_evaluated(definition):
        return "; ".join(str(problem) for problem in problems)
    size = len(msgspec.json.encode(definition)) + len(msgspec.json.encode(loops))
    if size > MAX_EVALUATED:
        return (
            f"{size} bytes after evaluation, with its loop variables, more than the {MAX_EVALUATED} that fit into a "
            "message"
        )
    return None


def with_definition(
    task: TaskDocument, definition: language.TaskDefinition, at: Micros
) -> TaskDocument:
    """Return a container task ready to be published."""
    return transitions.with_state(
        task,
        TaskState.PENDING,
        hold=None,
        evaluated=definition,
        evaluated_at=at,
        name=definition.name or task.name,
        var=definition.var or None,
        queue=definition.queue or DEFAULT_QUEUE,
        priority=definition.priority or 0,
    )


def with_beginning(
    task: TaskDocument, definition: language.TaskDefinition, at: Micros
) -> TaskDocument:
    """Return a composite that is to be expanded."""
    begun = transitions.with_state(
        task,
        TaskState.RUNNING,
        hold=None,
        evaluated_at=at,
        name=definition.name or task.name,
        var=definition.var or None,
        scheduled_at=at,
        started_at=at,
        expanded=False,
    )
    begun.then = [*task.then, intent(EXPAND, at)]
    return begun


def with_end(
    task: TaskDocument, state: TaskState, at: Micros, error: str | None = None
) -> TaskDocument:
    """Return a task that ends without having run. Its error is not redacted yet."""
    fields = transitions.task_end(state, at, evaluated_at=at)
    ended = transitions.with_state(task, state, **fields)
    ended.error = error
    ended.then = [*task.then, intent(ENDED_INTENT, at)]
    return ended


TURN_FIELDS = (
    "active", "hold", "evaluated", "evaluated_at", "name", "var", "queue", "priority", "scheduled_at",
    "started_at", "completed_at", "failed_at", "ended_at", "expanded", "error", "published_at",
)  # fmt: skip
"""What the coming of a task's turn may change besides its state: what a held task's compare-and-set writes."""


def each_items(
    task: TaskDocument, scope: Mapping[str, object], at: Micros, budget: Budget
) -> list[Any]:
    """Return what an `each` goes over: `{value}` for each item of a list, `{key, value}` for each of a map, by key."""
    assert task.definition.each is not None
    evaluator = Evaluator(scope, at, task.seed, budget)
    value = within_field("each.list", evaluator.value, task.definition.each.list)
    if isinstance(value, Mapping | list | tuple):
        _check_copies("each.list", task.scope, len(value))
    if isinstance(value, Mapping):
        return [
            {"key": key, "value": expressions.to_plain(value[key], budget)}
            for key in sorted(value, key=str)
        ]
    if isinstance(value, list | tuple):
        return [{"value": expressions.to_plain(item, budget)} for item in value]
    kind = type_name(value)
    raise ExpressionError(f"each.list must produce a list or a map, but produced {kind}")


def _check_copies(field: str, loops: Mapping[str, Any], children: int) -> None:
    """Raise `ExpressionError` where so many children would take too much with their copies of the loop variables around
    them: each alone may be small enough."""
    size = len(msgspec.json.encode(loops))
    if size * children > MAX_COPIES:
        error = ExpressionError(
            f"{children:,} tasks, each with a copy of {size:,} bytes of loop variables, would take more than "
            f"{MAX_COPIES:,} bytes",
            kind="limit",
        )
        error.add_note(field)
        raise error


_NEVER_HIDDEN: Final = ("queue", "var")
"""Fields from templates that are shown as they are: queues and results are found by them."""


def told_secret(job: JobDocument, task: TaskDocument) -> str | None:
    """Return what is wrong where a template brought a secret into a field of an evaluated task that is never hidden."""
    for name in _NEVER_HIDDEN:
        value = getattr(task, name)
        if not value or not has_template(getattr(task.definition, name)):
            continue
        if redactor_of_job(job).redact(value) != value:
            return f"{name}: the value of a secret can't be a part of it: a {name} is shown to everybody"
    return None


def kept_name(job: JobDocument, name: str) -> str:
    """Return a name as it may rest: people look for names in the store, and nothing needs the secrets in them."""
    return redactor_of_job(job).redact_beginning(name, MAX_NAME)


def kept_error(job: JobDocument | None, error: str | None) -> transitions.KeptError | None:
    """Return an error as it may rest. `job`: whose secrets it may hold; None where it can't be read."""
    if not error:
        return None
    redactor = Redactor() if job is None else redactor_of_job(job)
    return transitions.KeptError(redactor.redact_beginning(error, MAX_ERROR))


def log_secrets(
    job: JobDocument, definition: language.TaskDefinition, keys: Sequence[str]
) -> list[str]:
    """Return the values to redact from an evaluated task's log, longest first. `keys`: what keys say that a value is
    secret."""
    values = {*secrets_of(job), *keyed_values(definition, Redactor((), keys).is_secret_key)}
    parts = [definition, *definition.pre, *definition.post, *definition.sidecars]
    values |= {part.registry.password for part in parts if part.registry and part.registry.password}
    return sorted(values, key=lambda value: (-len(value), value))


Render = Callable[[str], str]
"""Gives a template's value; what it raises goes through, with the field's path as a note."""

_INNER: Final = (Parallel, Each, SubJob)
"""What has tasks of its own, evaluated when their turn comes."""

_OF_A_SUBJOB: Final = ("name", "inputs", "secrets", "webhooks")


def render_task(task: TaskDefinition, render: Render) -> TaskDefinition:
    """Return a copy with each template of the task's own rendered, its pre, post and sidecars included.

    Not `if` and `each.list`, which are expressions, and nothing of the tasks inside a composite.
    """
    rendered: TaskDefinition = _struct(task, plan_of(TaskDefinition), render, ())
    return rendered


def render_subjob(subjob: SubJob, render: Render) -> JobDefinition:
    """Return the job that a sub-job task starts: name, inputs, secrets and webhooks in the parent's scope.

    The rest is left to be evaluated in the job's own scope. Its webhooks are evaluated by this and
    must not be evaluated again.
    """
    plan = plan_of(SubJob)
    values = {name: getattr(subjob, name) for name in JobBody.__struct_fields__}
    for name in _OF_A_SUBJOB:
        values[name] = _value(values[name], plan.fields[name].plan, render, (name,))
    return JobDefinition(**values)


def _struct(value: Any, plan: StructPlan, render: Render, path: tuple[str, ...]) -> Any:
    changed = _files(value, render, (*path, "files")) if isinstance(value, SmallTask) else {}
    for name, attribute, kind in _templates(plan.cls):
        old = getattr(value, attribute)
        new = _value(old, kind, render, (*path, name))
        if new is not old:
            changed[attribute] = new
    return msgspec.structs.replace(value, **changed) if changed else value


def _files(task: SmallTask, render: Render, path: tuple[str, ...]) -> dict[str, Any]:
    """Return what changes where templates become files like the others."""
    texts = {
        name: _rendered(text, render, (*path, name, "template"))
        for name, text in task.file_templates.items()
    }
    return {"files": {**task.files, **texts}, "file_templates": {}} if texts else {}


def _value(value: Any, plan: Plan, render: Render, path: tuple[str, ...]) -> Any:
    if not value:
        return value
    if isinstance(plan, TextPlan):
        return _text(value, plan, render, path)
    if isinstance(plan, ListPlan):
        return [
            _value(item, plan.item, render, (*path, str(index))) for index, item in enumerate(value)
        ]
    if isinstance(plan, MapPlan):
        return {k: _value(v, plan.value, render, (*path, k)) for k, v in value.items()}
    return _struct(value, plan, render, path) if isinstance(plan, StructPlan) else value


def _text(value: str, plan: TextPlan, render: Render, path: tuple[str, ...]) -> str:
    return _rendered(value, render, path) if plan.role is TextRole.TEMPLATE else value


def _rendered(value: str, render: Render, path: tuple[str, ...]) -> str:
    if not has_template(value):
        return value
    try:
        return render(value)
    except Exception as error:
        error.add_note(".".join(path))
        raise


@functools.cache
def _templates(cls: type[msgspec.Struct]) -> tuple[tuple[str, str, Plan], ...]:
    """Return the fields of a Struct that hold templates, at any depth but inside composites."""
    return tuple(
        (name, field.attribute, field.plan)
        for name, field in plan_of(cls).fields.items()
        if _has_templates(field.plan)
    )


def _has_templates(plan: Plan) -> bool:
    if isinstance(plan, TextPlan):
        return plan.role is TextRole.TEMPLATE
    if isinstance(plan, ListPlan):
        return _has_templates(plan.item)
    if isinstance(plan, MapPlan):
        return _has_templates(plan.value)
    if not isinstance(plan, StructPlan) or plan.cls in _INNER:
        return False
    return bool(_templates(plan.cls))
