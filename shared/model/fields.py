"""What is known of a field in addition to its type: its description, its role, its rules.

All of it is data in the annotation (`msgspec.Meta`), so the document reader, the renderer, the JSON
Schema and the reference page read the one definition in `language.py`.
"""

import enum
from collections.abc import Callable
from typing import Any, Final

import msgspec


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
