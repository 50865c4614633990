"""Makes evaluated copies of tasks and sub-jobs, in which every template field is evaluated."""

import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from shared.model.checks import has_template
from shared.model.fields import TextRole
from shared.model.language import Each, JobBody, JobDefinition, Parallel, SubJob, TaskDefinition
from shared.model.plans import ListPlan, MapPlan, Plan, StructPlan, TextPlan, plan_of

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
    changed = {}
    for name, attribute, kind in _templates(plan.cls):
        old = getattr(value, attribute)
        new = _value(old, kind, render, (*path, name))
        if new is not old:
            changed[attribute] = new
    return msgspec.structs.replace(value, **changed) if changed else value


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
        return {k: _text(v, plan.value, render, (*path, k)) for k, v in value.items()}
    return _struct(value, plan, render, path) if isinstance(plan, StructPlan) else value


def _text(value: str, plan: TextPlan, render: Render, path: tuple[str, ...]) -> str:
    if plan.role is not TextRole.TEMPLATE or not has_template(value):
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
        return plan.value.role is TextRole.TEMPLATE
    if not isinstance(plan, StructPlan) or plan.cls in _INNER:
        return False
    return bool(_templates(plan.cls))
