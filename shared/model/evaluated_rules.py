"""The rules again, for what templates have given (the job language spec, Task)."""

from collections.abc import Iterator
from typing import Any, Final

from shared.model.checks import faults_of
from shared.model.fields import Role
from shared.model.language import Each, Parallel, SubJob, Task, kind_of
from shared.model.plans import ListPlan, MapPlan, Plan, StructPlan, TextPlan, plan_of
from shared.model.problems import Fault, Path, path_text
from shared.model.rules import container_rules
from shared.model.texts import text_fault

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
