"""Generates the page of job fields."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from shared.model.language import JobDefinition
from shared.model.plans import plan_of, structs
from shared.model.reference import FIELDS, FieldReference
from tests.field_tests import TESTS

_INTRODUCTION: Final = """\
# Job fields

This page is generated from the code (`make docs`).

A job is a YAML or JSON document. The document is a `JobDefinition`, each of its `tasks` is a `TaskDefinition`, and
so on. To check a job, run `haulier validate FILE`. Editors can use the JSON Schema at `GET /schemas/job.json`.
[The examples](../../examples) use every field.

Fields in **bold** are required. A *template* is text in which `{{ … }}` is an expression. An *expression* can be
written with or without the braces. A *string* is used exactly as written. The last column names the test that uses the
field on a running server; every field must have one.
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
        return f"map of {_linked(type_[1:-1].partition(': ')[2])}"
    kinds = type_.split(" or ")
    return " or ".join(f"[{kind}](#{kind.lower()})" if kind in _OWNERS else kind for kind in kinds)


def _test(node: str) -> str:
    file, _, name = node.partition("::")
    return f"[`{name}`](../../{file})"
