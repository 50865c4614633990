"""Texts with expressions in braces, and what can be told of them beforehand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.expressions import (
    ExpressionError,
    check_field,
    check_template,
    evaluate_field,
    names_in,
    names_in_field,
    render,
)

HINT = '; for braces that are no expression write {{ "{{" }}'
SCOPE = {"inputs": {"name": "Ada"}, "tasks": {"n": "3"}, "item": {"index": "0", "value": [1, 2.0]}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("hello {{ inputs.name }}!", "hello Ada!"),
        ("{{inputs.name}}{{ tasks.n }}", "Ada3"),
        ("{{ inputs.missing }}", ""),
        ("{{ item.value }}", "[1 2]"),
        ("{{}}", "{{}}"),
        ("{{ open", "{{ open"),
        ("close }}", "close }}"),
        ("{{ 1\n}}", "1"),
        ("{{{ 1 }}", None),
        ("{{ '{{' }}", "{{"),
        ("a {b} {{ 1 }} {c}", "a {b} 1 {c}"),
        ("{{ nil }}", "<nil>"),
        ('{{ "é"[0:1] }}', "\ufffd"),
    ],
)
def test_render(template: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(ExpressionError):
            render(template, SCOPE)
    else:
        assert render(template, SCOPE) == text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("item.value", [1, 2.0]),
        ("{{ item.value }}", [1, 2.0]),
        ("  {{ 1 + 1 }}\n", 2),
        ("1 == 2", False),
        ("{{ 1 }} {{ 2 }}", "1 2"),
        ("a{{ 1 }}", "a1"),
    ],
)
def test_a_field_may_be_bare_or_in_braces(field: str, value: object) -> None:
    assert evaluate_field(field, SCOPE) == value


def test_a_fault_tells_where_it_is() -> None:
    with pytest.raises(ExpressionError) as caught:
        render("x {{ inputs.name +\t}} y", SCOPE)
    assert caught.value.kind == "syntax"
    assert caught.value.render() == (
        f"unexpected end of expression{HINT} (1:16)\n |  inputs.name + \n | ...............^"
    )
    with pytest.raises(ExpressionError) as caught:
        evaluate_field("1 +\n  nums[0]", {"nums": []})
    assert str(caught.value).splitlines() == [
        "index out of range: the length is 0 (2:7)",
        " |   nums[0]",
        " | ......^",
    ]


@pytest.mark.parametrize("inside", [".x", "json .", "len .X", "range .Items", "name", "#if a"])
def test_who_writes_the_templates_of_another_program_learns_how(inside: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        render(f"x {{{{{inside}}}}}", SCOPE)
    assert str(caught.value).splitlines()[0].count(HINT) == 1
    for field in (inside, f"{{{{ {inside} }}}}"):
        with pytest.raises(ExpressionError) as caught:
            evaluate_field(field, SCOPE)
        assert HINT not in str(caught.value), "there all is an expression"


def test_what_fails_while_it_runs_was_meant() -> None:
    with pytest.raises(ExpressionError) as caught:
        render("{{ item.value[9] }}", SCOPE)
    assert HINT not in str(caught.value)


@pytest.mark.parametrize("check", [check_template, check_field])
def test_a_template_is_checked_with_the_same_words(check: Callable[[str], None]) -> None:
    with pytest.raises(ExpressionError, match="no expression write"):
        check("x {{json .}}")


def test_a_caret_finds_its_place_in_a_long_line() -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate_field("1" + " " * 1_000 + "+ zz", {})
    place, line, caret = caught.value.render().splitlines()
    assert place == "unknown name zz (1:1004)"
    assert len(line) < 400
    assert line[caret.index("^") :].startswith("zz")


def test_faults_hold_no_values() -> None:
    scope = {"secrets": {"key": "hunter2hunter2"}}
    for text in [
        "int(secrets.key)",
        "float(secrets.key)",
        "date(secrets.key)",
        "duration(secrets.key)",
    ]:
        with pytest.raises(ExpressionError) as caught:
            evaluate_field(text, scope)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "template", ["", "x", "{{ anything.at.all }}", "{{ x + 1 }}", "{{ now() }}", "{{}}"]
)
def test_check_passes_what_may_work(template: str) -> None:
    check_template(template)


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{{ 1 + }}", "syntax"),
        ("a {{ 1 }} {{ ( }}", "syntax"),
        ("{{ upcase(inputs.name) }}", "name"),
        ("{{ trim(5) }}", "name"),
        ("{{ sequence(1) }}", "name"),
        ("{{ let len = 1; len }}", "name"),
    ],
)
def test_check_refuses_what_cannot_work(template: str, kind: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        check_template(template)
    assert caught.value.kind == kind


def test_check_field_takes_both_spellings() -> None:
    check_field("inputs.go == 'yes'")
    check_field("{{ inputs.go == 'yes' }}")
    for field in ["inputs.go ==", "{{ inputs.go == }}"]:
        with pytest.raises(ExpressionError):
            check_field(field)


def test_names_in() -> None:
    assert names_in("plain").top == frozenset()
    names = names_in("{{ tasks.a + tasks['b'] }} {{ inputs.x }} {{ let y = item; y }}")
    assert names.top == {"tasks", "inputs", "item", "y"}
    assert names.keys["tasks"] == frozenset(["a", "b"])
    assert names.keys["inputs"] == frozenset(["x"])
    assert names.keys["item"] is None
    assert not names.whole
    assert names_in("{{ tasks.a }} {{ keys(tasks) }}").keys["tasks"] is None
    assert names_in("{{ keys($env) }}").whole
    assert names_in("{{ $env.tasks }}").top == {"tasks"}
    assert names_in("{{ not an expression }}").whole
    assert names_in_field("tasks.a == '1'").keys == {"tasks": frozenset(["a"])}
    assert names_in_field("{{ tasks.a }}").keys == {"tasks": frozenset(["a"])}
