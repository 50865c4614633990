"""Evaluates a task's templates, once, just before it runs (engine spec, States: Evaluated once)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from coordinator.engine import states
from coordinator.engine.new_documents import ENDED_INTENT, EXPAND, intent
from shared import expressions
from shared.expressions import ExpressionError, Texts
from shared.expressions.values import type_name
from shared.model import language
from shared.model.documents import MICROS_PER_SECOND, JobDocument, Micros, TaskDocument
from shared.model.queues import DEFAULT_QUEUE
from shared.model.rendering import render_subjob, render_task
from shared.model.rules import validate_evaluated
from shared.model.states import TaskKind, TaskState
from shared.model.views.redacting import redactor_of_job, secrets_of

MAX_EVALUATED = 2 * 1024 * 1024
"""Bytes, as JSON, that an evaluated task may take: it travels as one message."""


class Evaluator:
    """Evaluates with one scope, clock and seed, so that doing it again gives the same."""

    def __init__(self, scope: Mapping[str, object], at: Micros, seed: int) -> None:
        self._scope = scope
        self._now = datetime.fromtimestamp(at / MICROS_PER_SECOND, UTC)
        self._seed = seed

    def render(self, template: str) -> str:
        """Return the text that `template` becomes; raises `ExpressionError`."""
        return expressions.render(template, self._scope, now=self._now, seed=self._seed)

    def value(self, expression: str) -> object:
        """Return the value of an expression, bare or in braces; raises `ExpressionError`."""
        return expressions.evaluate_field(expression, self._scope, now=self._now, seed=self._seed)

    def condition(self, expression: str) -> bool:
        """Return whether an `if` lets its task run: any text but exactly `false`, trimmed."""
        return expressions.format_value(self.value(expression)).strip() != "false"


def scope_for(
    job: JobDocument, loops: Mapping[str, Any], variables: Mapping[str, str]
) -> dict[str, object]:
    """Return the names in scope in a task of `job`. A loop variable may hide any of the others."""
    return {
        "inputs": Texts(job.definition.inputs or {}),
        "secrets": Texts(job.definition.secrets or {}),
        "tasks": Texts(variables),
        "job": Texts({"id": job.id, "name": job.definition.name}),
        **loops,
    }


def vars_of(definition: language.TaskDefinition) -> tuple[str, ...] | None:
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
    return wanted_vars(texts, expressions_too)


def wanted_vars(templates: Iterable[str], fields: Iterable[str] = ()) -> tuple[str, ...] | None:
    """Return the same of texts: templates, and fields that are expressions, bare or in braces."""
    found = [expressions.names_in(text) for text in templates if "{{" in text]
    found += [expressions.names_in_field(text) for text in fields]
    wanted: set[str] = set()
    for names in found:
        keys = None if names.whole else names.keys.get("tasks", frozenset())
        if keys is None:
            return None
        wanted |= keys
    return tuple(sorted(wanted))


def with_evaluation(task: TaskDocument, evaluator: Evaluator, at: Micros) -> TaskDocument:
    """Return `task`, whose turn has come, as what it becomes: PENDING with its templates evaluated, SKIPPED, FAILED,
    or RUNNING for a composite, which is to be expanded."""
    try:
        if task.definition.if_ and not evaluator.condition(task.definition.if_):
            return with_end(task, TaskState.SKIPPED, at)
        definition = render_task(task.definition, evaluator.render)
    except ExpressionError as error:
        return with_end(task, TaskState.FAILED, at, f"task {task.name!r}: {error}")
    if problem := evaluated_problem(definition):
        return with_end(task, TaskState.FAILED, at, f"task {task.name!r}: {problem}")
    if task.kind == TaskKind.CONTAINER:
        return with_definition(task, definition, at)
    return with_beginning(task, definition, at)


def evaluated_problem(definition: language.TaskDefinition) -> str | None:
    """Return what is wrong with an evaluated task, or None."""
    if problems := validate_evaluated(definition):
        return "; ".join(str(problem) for problem in problems)
    size = len(msgspec.json.encode(definition))
    if size > MAX_EVALUATED:
        return (
            f"{size} bytes after evaluation, more than the {MAX_EVALUATED} that fit into a message"
        )
    return None


def with_definition(
    task: TaskDocument, definition: language.TaskDefinition, at: Micros
) -> TaskDocument:
    """Return a container task ready to be published."""
    return states.with_state(
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
    begun = states.with_state(
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
    """Return a task that ends without having run."""
    fields = states.task_end(state, at, error=error, evaluated_at=at)
    ended = states.with_state(task, state, **fields)
    ended.then = [*task.then, intent(ENDED_INTENT, at)]
    return ended


TURN_FIELDS = (
    "active", "hold", "evaluated", "evaluated_at", "name", "var", "queue", "priority", "scheduled_at",
    "started_at", "completed_at", "failed_at", "ended_at", "expanded", "error", "published_at",
)  # fmt: skip
"""What the coming of a task's turn may change besides its state: what a held task's compare-and-set writes."""


def each_items(task: TaskDocument, evaluator: Evaluator) -> list[Any]:
    """Return what an `each` goes over: `{value}` for each item of a list, `{key, value}` for each of a map, by key."""
    assert task.definition.each is not None
    value = evaluator.value(task.definition.each.list)
    if isinstance(value, Mapping):
        return [
            {"key": key, "value": expressions.to_plain(value[key])}
            for key in sorted(value, key=str)
        ]
    if isinstance(value, list | tuple):
        return [{"value": expressions.to_plain(item)} for item in value]
    kind = type_name(value)
    raise ExpressionError(f"each.list must produce a list or a map, but produced {kind}")


def without_secrets(job: JobDocument, text: str) -> str:
    """Return a name or an error as it may rest: people look for these in the store, and nothing needs the values."""
    return redactor_of_job(job).redact(text)


def log_secrets(job: JobDocument, definition: language.TaskDefinition) -> list[str]:
    """Return the values to redact from a task's log, longest first."""
    values = {*secrets_of(job)}
    parts = [definition, *definition.pre, *definition.post, *definition.sidecars]
    values |= {part.registry.password for part in parts if part.registry and part.registry.password}
    return sorted(values, key=lambda value: (-len(value), value))
