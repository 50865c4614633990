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
    rules: tuple[Rule, ...] = ()


class FilePlan(msgspec.Struct, frozen=True):
    """A text as it is written, or a map whose `template` becomes that text and is kept in an attribute of its own."""

    text: TextPlan
    struct: StructPlan
    kept_in: str

    @property
    def template(self) -> TextPlan:
        """What the template must be, and the text that it becomes."""
        plan = self.struct.fields["template"].plan
        assert isinstance(plan, TextPlan)
        return plan


class MapPlan(msgspec.Struct, frozen=True):
    """A map from texts to texts, or to what becomes one."""

    key: TextPlan
    value: TextPlan | FilePlan


class StructPlan:
    """One Struct of the language and its fields by their names on the wire."""

    __slots__ = ("cls", "fields")

    def __init__(self, cls: type[msgspec.Struct]) -> None:
        self.cls = cls
        self.fields: dict[str, FieldPlan] = {}


Plan = TextPlan | FilePlan | NumberPlan | BooleanPlan | ListPlan | MapPlan | StructPlan


class FieldPlan(msgspec.Struct, frozen=True):
    """A field: its name in Python, what it must be, and whether it must be there."""

    attribute: str
    plan: Plan
    required: bool
    description: str

    def kept(self, made: Any) -> dict[str, Any]:
        """Return what a document has here by the attributes that keep it."""
        if not isinstance(self.plan, MapPlan) or not isinstance(self.plan.value, FilePlan):
            return {self.attribute: made}
        texts = {name: text for name, text in made.items() if isinstance(text, str)}
        templates = {name: made[name].template for name in made if name not in texts}
        return {self.attribute: texts, self.plan.value.kept_in: templates}


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
        apart = {
            found.templates[1] for field in info.fields if (found := traits(field.type)).templates
        }
        for field in info.fields:
            if field.name in apart:
                continue
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
            return ListPlan(self.plan(kind.item_type), traits(info).rules)
        if isinstance(kind, inspect.DictType):
            return MapPlan(_text(kind.key_type), self._entry(kind.value_type, traits(info)))
        if isinstance(kind, inspect.BoolType):
            return BooleanPlan()
        if isinstance(kind, inspect.StrType):
            return _text(info, loose=loose)
        return NumberPlan(isinstance(kind, inspect.IntType), _rules(info))

    def _entry(self, info: inspect.Type, of_map: Traits) -> TextPlan | FilePlan:
        text = _text(info, loose=True)
        if of_map.templates is None:
            return text
        cls, kept_in = of_map.templates
        return FilePlan(text, self.struct(inspect.type_info(cls)), kept_in)


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
        found = _innermost(waiting.pop(0))
        if isinstance(found, StructPlan) and found.cls not in seen:
            seen[found.cls] = found
            waiting.extend(field.plan for field in found.fields.values())
    yield from seen.values()


def _innermost(plan: Plan) -> Plan:
    if isinstance(plan, ListPlan):
        return plan.item
    if isinstance(plan, MapPlan):
        return _innermost(plan.value)
    return plan.struct if isinstance(plan, FilePlan) else plan


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
    templates: tuple[type[msgspec.Struct], str] | None = None


_BARE: Final = Traits(TextRole.PLAIN, (), required=False)


def about(
    description: str = "",
    *rules: Rule,
    role: TextRole | None = None,
    required: bool = False,
    templates: tuple[type[msgspec.Struct], str] | None = None,
) -> msgspec.Meta:
    """Return the annotation of a field or of a kind of text; what it leaves out, the inner type says.

    `templates`: of a map, how a document has its entries that are templates, and the attribute that keeps those."""
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
    if templates is not None:
        extra["templates"] = templates
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
        templates=extra.get("templates"),
    )


def bare(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """Return an inspected type without its annotation and without its `| None`."""
    if isinstance(info, msgspec.inspect.Metadata):
        return bare(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        some = [t for t in info.types if not isinstance(t, msgspec.inspect.NoneType)]
        return bare(some[0]) if len(some) == 1 else info
    return info
