"""The page of the job language's fields."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from shared.model.language import JobDefinition
from shared.model.plans import plan_of, structs
from shared.model.reference import FIELDS, FieldReference
from tests.field_tests import TESTS

_INTRODUCTION: Final = """\
# Fields of a job

This page is made from the code (`make docs`).

A job is a YAML or JSON document: a `JobDefinition`, whose `tasks` are each a `TaskDefinition`, and so on down.
`haulier validate FILE` says what is wrong with one, and `GET /schemas/job.json` gives editors its JSON Schema.
[The examples](../../examples) show every field at work.

Types: a *template* is text in which `{{ … }}` is an expression; an *expression* may stand bare or in braces; a
*string* is taken as it is written. A field in **bold** is required. The last column is the test that shows the field at
work on a running server; a test fails for any field without one.
"""


_OWNERS: Final = frozenset(field.owner for field in FIELDS)


def page() -> str:
    """Return the page, in Markdown."""
    parts = [_INTRODUCTION]
    promises = {
        plan.cls.__name__: plan.cls.__doc__ or "" for plan in structs(plan_of(JobDefinition))
    }
    for owner, fields in groupby(FIELDS, key=lambda field: field.owner):
        parts.append(f"## {owner}\n\n{promises[owner].splitlines()[0]}\n\n" + _table(fields))
    return "\n".join(parts)


def _table(fields: Iterator[FieldReference]) -> str:
    rows = ["| field | type | | test |", "|---|---|---|---|", *map(_row, fields)]
    return "\n".join(rows) + "\n"


def _row(field: FieldReference) -> str:
    name = f"**`{field.name}`**" if field.required else f"`{field.name}`"
    description = field.description.replace("|", "\\|")
    return f"| {name} | {_linked(field.type)} | {description} | {_test(TESTS[field.path])} |"


def _linked(type_: str) -> str:
    """Return a type in words, with a link to the part of the page that tells of it."""
    if type_.startswith("["):
        return f"list of {_linked(type_[1:-1])}"
    if type_.startswith("{"):
        return f"map of {type_[1:-1].partition(': ')[2]}"
    return f"[{type_}](#{type_.lower()})" if type_ in _OWNERS else type_


def _test(node: str) -> str:
    file, _, name = node.partition("::")
    return f"[`{name}`](../../{file})"
