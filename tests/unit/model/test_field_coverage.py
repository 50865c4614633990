"""Every field of the job language has a test that shows it at work."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from shared.model.reference import FIELDS
from tests.field_tests import TESTS

ROOT = Path(__file__).parents[3]
MAKERS = {
    "name": ("task(",),
    "run": ("task(",),
    "tasks": ("job(", "parallel("),
    "list": ("each(",),
    "task": ("each(",),
}
"""What makes a definition with a field in it, where a test does not write the field itself."""


@cache
def source_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def functions_of(file: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test functions of a file, by name."""
    return {
        node.name: node
        for node in ast.parse(source_of(file)).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_each_field_has_a_test_and_each_entry_is_a_field() -> None:
    assert sorted(TESTS) == sorted(field.path for field in FIELDS)


@pytest.mark.parametrize("field", TESTS)
def test_the_test_of_a_field_is_there_and_speaks_of_it(field: str) -> None:
    file, _, rest = TESTS[field].partition("::")
    name, _, parameter = rest.rstrip("]").partition("[")
    functions = functions_of(file)
    assert name in functions
    written = field.partition(".")[2]
    if parameter:
        example = ROOT / "examples" / f"{parameter.partition('-')[2]}.yaml"
        assert f"{written}:" in example.read_text(encoding="utf-8")
        return
    text = ast.get_source_segment(source_of(file), functions[name]) or ""
    decorated = "".join(
        ast.get_source_segment(source_of(file), one) or "" for one in functions[name].decorator_list
    )
    makers = MAKERS.get(written, (f"{written}(",))
    assert any(word in text + decorated for word in (written, *makers))
