"""The fields of the language and their types as plans: what a value of each must be, ready for walking.

Made once from the annotations of `language.py`, and used by all that goes through documents or jobs
without knowing their fields: the document reader, the renderer, the check of evaluated tasks.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect


class TextPlan(msgspec.Struct, frozen=True):
    """A text. `loose`: JSON's numbers and booleans are taken too, as they are written."""

    role: TextRole
    rules: tuple[Rule, ...]
    loose: bool = False


class NumberPlan(msgspec.Struct, frozen=True):
    """A number, `whole` or not."""

    whole: bool
    rules: tuple[Rule, ...]


class BooleanPlan(msgspec.Struct, frozen=True):
    """True or false."""


class ListPlan(msgspec.Struct, frozen=True):
    """A list of like items."""

    item: Plan


class MapPlan(msgspec.Struct, frozen=True):
    """A map from texts to texts."""

    key: TextPlan
    value: TextPlan


class StructPlan:
    """One Struct of the language and its fields by their names on the wire."""

    __slots__ = ("cls", "fields")

    def __init__(self, cls: type[msgspec.Struct]) -> None:
        self.cls = cls
        self.fields: dict[str, FieldPlan] = {}


Plan = TextPlan | NumberPlan | BooleanPlan | ListPlan | MapPlan | StructPlan


class FieldPlan(msgspec.Struct, frozen=True):
    """A field: its name in Python, what it must be, and whether it must be there."""

    attribute: str
    plan: Plan
    required: bool
    description: str


NAMES: Final[dict[type, str]] = {
    TextPlan: "text",
    BooleanPlan: "true or false",
    ListPlan: "a list",
    MapPlan: "a map",
    StructPlan: "a map",
}


def name_of(plan: Plan) -> str:
    """Return what a value of this plan is, in words for a message."""
    if isinstance(plan, NumberPlan):
        return "a whole number" if plan.whole else "a number"
    return NAMES[type(plan)]


@functools.cache
def plan_of(cls: type[msgspec.Struct]) -> StructPlan:
    """Return the plan of a Struct of the language."""
    return _Compiler().struct(inspect.type_info(cls))


class _Compiler:
    def __init__(self) -> None:
        self._structs: dict[type, StructPlan] = {}

    def struct(self, info: inspect.Type) -> StructPlan:
        assert isinstance(info, inspect.StructType)
        if info.cls in self._structs:
            return self._structs[info.cls]
        plan = self._structs[info.cls] = StructPlan(info.cls)
        for field in info.fields:
            plan.fields[field.encode_name] = FieldPlan(
                attribute=field.name,
                plan=self.plan(field.type),
                required=traits(field.type).required,
                description=_description(field.type),
            )
        return plan

    def plan(self, info: inspect.Type, *, loose: bool = False) -> Plan:
        kind = bare(info)
        if isinstance(kind, inspect.StructType):
            return self.struct(kind)
        if isinstance(kind, inspect.ListType):
            return ListPlan(self.plan(kind.item_type))
        if isinstance(kind, inspect.DictType):
            return MapPlan(_text(kind.key_type), _text(kind.value_type, loose=True))
        if isinstance(kind, inspect.BoolType):
            return BooleanPlan()
        if isinstance(kind, inspect.StrType):
            return _text(info, loose=loose)
        return NumberPlan(isinstance(kind, inspect.IntType), _rules(info))


def _text(info: inspect.Type, *, loose: bool = False) -> TextPlan:
    return TextPlan(traits(info).role, _rules(info), loose)


def _rules(info: inspect.Type) -> tuple[Rule, ...]:
    """Return the rules of a type and of what it wraps: `Annotated[Annotated[int, …] | None, …]`."""
    own = traits(info).rules
    inner = info.type if isinstance(info, inspect.Metadata) else info
    if isinstance(inner, inspect.UnionType):
        return own + tuple(rule for kind in inner.types for rule in traits(kind).rules)
    return own


def _description(info: inspect.Type) -> str:
    if not isinstance(info, inspect.Metadata):
        return ""
    return str((info.extra_json_schema or {}).get("description", ""))


def structs(plan: StructPlan) -> Iterator[StructPlan]:
    """Yield a plan and all that its fields lead to, each once, in the order they are met."""
    seen: dict[type, StructPlan] = {}
    waiting: list[Any] = [plan]
    while waiting:
        found = waiting.pop(0)
        found = found.item if isinstance(found, ListPlan) else found
        if isinstance(found, StructPlan) and found.cls not in seen:
            seen[found.cls] = found
            waiting.extend(field.plan for field in found.fields.values())
    yield from seen.values()


class TextRole(enum.Enum):
    """What a text is to the engine."""

    TEMPLATE = "template"
    """Text with `{{ expressions }}` inside; a Task's are evaluated before it is published."""
    EXPRESSION = "expression"
    """One expression, bare or in braces; evaluated where it is needed, never in place."""
    PLAIN = "plain"
    """Taken as it is written."""


Check = Callable[[Any], str | None]
"""Gives what is wrong with a value, in words for the user, or None."""


class Rule(msgspec.Struct, frozen=True):
    """One rule for a value: the check, and as much of it as JSON Schema can say."""

    check: Check
    schema: dict[str, Any]


class Traits(msgspec.Struct, frozen=True):
    """What `about` put on a type."""

    role: TextRole
    rules: tuple[Rule, ...]
    required: bool


_BARE: Final = Traits(TextRole.PLAIN, (), required=False)


def about(
    description: str = "",
    *rules: Rule,
    role: TextRole | None = None,
    required: bool = False,
) -> msgspec.Meta:
    """Return the annotation of a field or of a kind of text; what it leaves out, the inner type says."""
    schema: dict[str, Any] = {"description": description} if description else {}
    for rule in rules:
        schema |= rule.schema
    extra: dict[str, Any] = {}
    if rules:
        extra["rules"] = rules
    if role is not None:
        extra["role"] = role
    if required:
        extra["required"] = True
    return msgspec.Meta(extra_json_schema=schema or None, extra=extra or None)


def traits(info: msgspec.inspect.Type) -> Traits:
    """Return the traits of an inspected type."""
    if not isinstance(info, msgspec.inspect.Metadata):
        return _BARE
    extra = info.extra or {}
    return Traits(
        role=extra.get("role", TextRole.PLAIN),
        rules=extra.get("rules", ()),
        required=extra.get("required", False),
    )


def bare(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """Return an inspected type without its annotation and without its `| None`."""
    if isinstance(info, msgspec.inspect.Metadata):
        return bare(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        some = [t for t in info.types if not isinstance(t, msgspec.inspect.NoneType)]
        return bare(some[0]) if len(some) == 1 else info
    return info
