"""Any text whatever gives a value or an expression error, soon.

`HAULIER_HYPOTHESIS_EXAMPLES=10000` asks for more examples than the few of an everyday run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.expressions import (
    Budget,
    ExpressionError,
    check_template,
    evaluate_field,
    evaluate_template,
    format_value,
    names_in,
    render,
    to_plain,
)
from shared.expressions.evaluation import check_expression
from tests.unit.expressions.expression_cases import load

SCOPE, CASES = load()
NOW = datetime(2026, 11, 24, tzinfo=UTC)
SECONDS = 30.0
"""A second or two on a quiet machine."""
EXAMPLES = int(os.environ.get("HAULIER_HYPOTHESIS_EXAMPLES", "60"))

many = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

WORDS = """
    all any one none filter map count sum find findIndex findLast findLastIndex groupBy sortBy reduce len
    type abs ceil floor round int float string trim trimPrefix trimSuffix upper lower split splitAfter replace
    repeat join indexOf lastIndexOf hasPrefix hasSuffix max min mean median toJSON fromJSON toBase64 fromBase64
    now duration date timezone first last get take keys values toPairs fromPairs reverse uniq concat flatten
    sort bitand bitor bitxor bitnand bitshl bitshr bitushr bitnot sequence randomInt inputs tasks job item i
    neg zero f big fbig small s u blank t no nilv nums floats words mixed none_ nested users m deep emptym
    true false nil let if else not and or in matches contains startsWith endsWith $env # #acc #index
    + - * / % ** ^ == != < > <= >= && || ! ?? ?. ? : :: , ; = | . .. ( ) [ ] { } 0 1 -1 1e9 1e308 0.5
    9223372036854775807 "" "a" 'b' `c` "é" "1h" "2024-02-29" "UTC" "(a*)*" "[" .name .Year() .Format("Mon")
    __class__ ' " ` /* */ //
""".split()  # noqa: SIM905 - a list of this size reads better so
CALLS = WORDS[: WORDS.index("inputs")]
OPERATORS = ["+", "-", "*", "/", "%", "**", "==", "<", "and", "or", "in", "..", "??", "matches"]
TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|\w+|\s+|.', re.DOTALL)

words = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)
atoms = st.sampled_from(WORDS[WORDS.index("inputs") : WORDS.index("let")])
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(CALLS), st.lists(inner, max_size=3)).map(
            lambda call: f"{call[0]}({', '.join(call[1])})"
        ),
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(
            lambda pair: f"({pair[0]} {pair[1]} {pair[2]})"
        ),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]}[{pair[1]}]"),
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.tuples(inner, inner).map(lambda pair: "{" + f"a: {pair[0]}, b: {pair[1]}" + "}"),
    ),
    max_leaves=25,
)
cases = st.sampled_from([str(case["expr"]) for case in CASES])


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A reference case with some of its words replaced by words of another."""
    tokens = TOKENS.findall(draw(cases))
    others = [*TOKENS.findall(draw(cases)), "("]
    for _ in range(draw(st.integers(1, 4))):
        if not tokens:
            break
        place = draw(st.integers(0, len(tokens) - 1))
        tokens[place : place + draw(st.integers(0, 2))] = draw(
            st.lists(st.sampled_from(others), max_size=3)
        )
    return "".join(tokens)


texts = st.one_of(st.text(max_size=60), words, trees, mutants())


def fault_of(work: Callable[[], object]) -> ExpressionError | None:
    """The expression error that the work ends with, if any; any other exception is the test's end."""
    try:
        work()
    except ExpressionError as fault:
        return fault
    return None


@pytest.mark.slow
@many
@given(texts)
def test_any_text_is_a_value_or_an_expression_error(text: str) -> None:
    started = time.monotonic()

    def work() -> None:
        value = evaluate_template(text, SCOPE, now=NOW, seed=1)
        format_value(value)
        to_plain(value)

    fault = fault_of(work)
    if fault is not None:
        assert fault.kind in ("syntax", "name", "run", "limit")
        assert fault.message
        assert fault.position is None or 0 <= fault.position <= len(text)
        assert str(fault).startswith(fault.message)
    assert time.monotonic() - started < SECONDS


@many
@given(
    st.lists(st.one_of(texts, texts.map(lambda text: "{{" + text + "}}")), max_size=4).map("".join)
)
def test_any_template_is_a_text_or_an_expression_error(template: str) -> None:
    fault_of(lambda: check_template(template))
    fault_of(lambda: names_in(template))
    fault_of(lambda: evaluate_field(template, SCOPE, now=NOW, seed=1))
    fault_of(lambda: render(template, SCOPE, now=NOW, seed=1).encode("utf-8"))


@many
@given(texts)
def test_the_same_evaluation_gives_the_same_again(text: str) -> None:
    def outcome() -> object:
        try:
            return format_value(evaluate_template(text, SCOPE, now=NOW, seed=7))
        except ExpressionError as fault:
            return fault.kind, fault.message, fault.position

    assert outcome() == outcome()


@many
@given(trees)
def test_what_check_refuses_never_works(text: str) -> None:
    if fault_of(lambda: check_expression(text, Budget())) is not None:
        assert fault_of(lambda: evaluate_template(text, SCOPE, now=NOW, seed=1)) is not None


@many
@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_whole_numbers_wrap_round_at_64_bits(left: int, right: int) -> None:
    wrapped = [(number + 2**63) % 2**64 - 2**63 for number in (left, right)]
    scope = {"a": wrapped[0], "b": wrapped[1]}
    assert evaluate_template("a + b", scope) == (sum(wrapped) + 2**63) % 2**64 - 2**63
    assert evaluate_template("a * b", scope) == (wrapped[0] * wrapped[1] + 2**63) % 2**64 - 2**63
    if wrapped[1]:
        assert evaluate_template("a % b", scope) == wrapped[0] - int_quotient(*wrapped) * wrapped[1]


def int_quotient(dividend: int, divisor: int) -> int:
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


@many
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_float_reads_back_as_the_float(number: float) -> None:
    assert float(format_value(number)) == number
    assert evaluate_template("fromJSON(toJSON(x))", {"x": number}) == number
