"""Lists every field of the job language, for the reference page and for tests."""

from typing import Final

import msgspec

from shared.model.language import JobDefinition
from shared.model.plans import (
    BooleanPlan,
    FilePlan,
    ListPlan,
    MapPlan,
    NumberPlan,
    Plan,
    StructPlan,
    TextPlan,
    TextRole,
    plan_of,
    structs,
)


class FieldReference(msgspec.Struct, frozen=True):
    """One field of one part of the language."""

    owner: str
    """The part, by its type's name: `Task`."""
    name: str
    """As it is written: `initialDelay`."""
    type: str
    """In the notation of the spec: `template`, `{string: string}`, `[task]`."""
    required: bool
    description: str

    @property
    def path(self) -> str:
        """`Task.retry`: the name that a table or a test calls it by."""
        return f"{self.owner}.{self.name}"


def _type_name(plan: Plan) -> str:
    if isinstance(plan, TextPlan):
        return "string" if plan.role is TextRole.PLAIN else plan.role.value
    if isinstance(plan, FilePlan):
        return f"{_type_name(plan.text)} or {_type_name(plan.struct)}"
    if isinstance(plan, NumberPlan):
        return "integer" if plan.whole else "number"
    if isinstance(plan, BooleanPlan):
        return "boolean"
    if isinstance(plan, ListPlan):
        return f"[{_type_name(plan.item)}]"
    if isinstance(plan, MapPlan):
        return f"{{string: {_type_name(plan.value)}}}"
    return plan.cls.__name__


def _fields(plan: StructPlan) -> list[FieldReference]:
    return [
        FieldReference(
            plan.cls.__name__, name, _type_name(field.plan), field.required, field.description
        )
        for name, field in plan.fields.items()
    ]


FIELDS: Final[tuple[FieldReference, ...]] = tuple(
    field for plan in structs(plan_of(JobDefinition)) for field in _fields(plan)
)
"""Every field of the model, part by part, the job's own first."""
