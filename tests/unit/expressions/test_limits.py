"""No expression runs for ever, takes all the memory, or comes near Python."""

from __future__ import annotations

import sys
import time

import pytest

from shared.expressions import (
    ExpressionError,
    check_template,
    evaluate_template,
    format_value,
    names_in,
    render,
    to_plain,
)

pytestmark = pytest.mark.slow

LIMITS: list[tuple[str, str]] = [
    ("sequence(1, 1000000000000)", "more than 1,000,000 elements"),
    ("1..1000000000000", "more than 1,000,000 elements"),
    ('repeat("x", 1000000000000)', "at most 1,000,000 times"),
    ('repeat(repeat("x", 1000), 20000)', "more than 16,777,216 bytes"),
    ("map(1..2000, map(1..2000, #))", "more than 16,777,216 bytes"),
    ("reduce(1..900000, #acc + # + # + # + #)", "more than 5,000,000 steps"),
    ("reduce(1..40, [#acc, #acc], 1)", "more than 1,000,000 elements"),
    ("string(reduce(1..40, [#acc, #acc], 1))", "more than 16,777,216 bytes"),
    ("toJSON(reduce(1..40, [#acc, #acc], 1))", "more than 16,777,216 bytes"),
    ("flatten(reduce(1..40, [#acc, #acc], 1))", "more than 16,777,216 bytes"),
    (
        "let a = reduce(1..40, [#acc, #acc], 1); a == reduce(1..40, [#acc, #acc], 1)",
        "more than 5,000,000 steps",
    ),
    ("reduce(1..500, [#acc], 1)", "nested deeper than 100"),
    ("string(reduce(1..500, [#acc], 1))", "nested deeper than 100"),
    ("reduce(1..5000, [#acc], 1) == reduce(1..5000, [#acc], 1)", "too deep into a value"),
    ('reduce(1..60, #acc + #acc, "x")', "more than 16,777,216 bytes"),
    (
        'replace(repeat("a", 400000), "a", repeat("b", 1000))',
        "more than 16,777,216 bytes",
    ),
    ('fromJSON(repeat("[", 100000))', "nested deeper than 100"),
    ('fromJSON(repeat("[", 200) + repeat("]", 200))', "nested deeper than 100"),
    ('"x" matches repeat("(x{1000})", 1000)', "more than 8,192 characters"),
    ("(" * 5_000, "nested deeper than 80"),
    ("!" * 5_000 + "true", "nested deeper than 80"),
    ("[" * 5_000, "nested deeper than 80"),
    ("f(" * 5_000, "nested deeper than 80"),
    ("true" + " ? true : true" * 500, "nested deeper than 80"),
    ("1" + " + 1" * 3_000, "deeper than 200 levels"),
    ("a" + ".a" * 3_000, "deeper than 200 levels"),
    ("[" + "1," * 20_000 + "1]", "more than 10,000 parts"),
    ('"' + "x" * 70_000 + '"', "more than 65,536 characters"),
]


@pytest.mark.parametrize(("text", "reason"), LIMITS, ids=[text[:40] for text, _ in LIMITS])
def test_each_limit_has_its_message(text: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(ExpressionError) as caught:
        evaluate_template(text, {})
    assert caught.value.kind == "limit"
    assert reason in caught.value.message
    assert time.monotonic() - started < 60


def test_what_stays_within_the_limits_works() -> None:
    assert evaluate_template("len(sequence(0, 100000))", {}) == 100_000
    assert evaluate_template("sum(map(1..100000, # * 2))", {}) == 10_000_100_000
    assert evaluate_template("(" * 70 + "1" + ")" * 70, {}) == 1
    assert evaluate_template("1" + " + 1" * 150, {}) == 151
    assert evaluate_template('len(repeat("x", 900000))', {}) == 900_000


@pytest.mark.parametrize(
    "text",
    [
        '(repeat("a", 100000) + "b") matches "^(a+)+$"',
        'repeat("a", 500000) matches "(a*)*b"',
        'repeat("a", 500000) matches "(.*)(.*)(.*)(.*)(.*)x"',
    ],
)
def test_no_regular_expression_backtracks(text: str) -> None:
    started = time.monotonic()
    assert evaluate_template(text, {}) is False
    assert time.monotonic() - started < 30


def test_a_regular_expression_that_grows_too_big_is_refused() -> None:
    with pytest.raises(ExpressionError, match="regular expression"):
        evaluate_template(r'"x" matches "((a{1,100}){1,100}){1,100}"', {})
    with pytest.raises(ExpressionError, match="unknown escape"):
        evaluate_template(r'"x" matches "\\C"', {})


@pytest.mark.parametrize(
    "text",
    [
        '"".__class__',
        "inputs.__class__.__mro__",
        "m.__init__.__globals__",
        'm["__class__"]["__base__"]',
        "nums.append(1)",
        "now().__reduce__()",
        '{"a": now()}.a.__class__',
        '{"a": "x"}.a.format(1)',
        "$env.__builtins__",
        'timezone("../../../etc/passwd")',
        "__import__('os')",
    ],
)
def test_python_is_out_of_reach(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate_template(text, {"inputs": {}, "m": {}, "nums": [1]})


def test_no_key_is_a_python_attribute() -> None:
    assert evaluate_template('m["__class__"]', {"m": {}}) is None
    assert evaluate_template("inputs.__class__", {"inputs": {}}) == ""


def test_a_template_has_one_budget_for_all_its_expressions() -> None:
    costly = "{{ count(1..300000, # > 1) }}"
    assert render(costly, {}) == "299999"
    with pytest.raises(
        ExpressionError, match=r"more than 5,000,000 steps|more than 16,777,216 bytes"
    ):
        render(costly * 20, {})


def test_a_template_is_limited_too() -> None:
    with pytest.raises(ExpressionError, match="more than 4,194,304 characters"):
        render("x" * 5_000_000, {})
    with pytest.raises(ExpressionError, match="more than 131,072 characters"):
        check_template("{{ 1 + 1 }}" * 50_000)
    with pytest.raises(ExpressionError, match="longer than 16,777,216 characters"):
        render("{{ inputs.a }}" * 20, {"inputs": {"a": "x" * 1_000_000}})


def test_a_call_from_deep_inside_a_program_still_gives_an_expression_error() -> None:
    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            for text in ["(" * 79 + "1" + ")" * 79, "1" + "+1" * 199]:
                with pytest.raises(ExpressionError, match="deep"):
                    evaluate_template(text, {})

    frame = sys._getframe()
    here = 0
    while frame.f_back is not None:
        frame, here = frame.f_back, here + 1
    deeper(sys.getrecursionlimit() - here - 160)


def test_values_of_the_scope_are_limited_in_depth() -> None:
    value: object = 1
    for _ in range(200):
        value = [value]
    with pytest.raises(ExpressionError, match="nested deeper than 100"):
        evaluate_template("item", {"item": value})
    with pytest.raises(ExpressionError, match="nested deeper than 100"):
        format_value(value)
    with pytest.raises(ExpressionError, match="nested deeper than 100"):
        to_plain(value)


def test_names_of_a_long_expression_are_found_fast() -> None:
    text = "{{ [" + ", ".join(f"name{index}" for index in range(4_000)) + "] }}"
    started = time.monotonic()
    assert len(names_in(text).top) == 4_000
    assert time.monotonic() - started < 30


def test_plain_values_hold_what_json_holds() -> None:
    value = evaluate_template(
        '[duration("1s"), date("2024-02-29"), groupBy([1], #), 1.5, date("2024-02-29").Month()]', {}
    )
    assert to_plain(value) == [1_000_000_000, "2024-02-29T00:00:00Z", {"1": [1]}, 1.5, 2]
    with pytest.raises(ExpressionError, match="NaN"):
        to_plain(float("nan"))
