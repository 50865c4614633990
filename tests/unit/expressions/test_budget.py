"""Evaluations that share a budget build no more than it has, whatever they ask for."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.expressions import (
    Budget,
    Evaluation,
    ExpressionError,
    OutOfTurn,
    check_template,
    evaluate_template,
    names_in,
    render_within,
)
from shared.expressions.limits import MAX_BYTES
from shared.model.decoding import decode_job
from shared.model.problems import InvalidDocument

pytestmark = pytest.mark.slow

BYTES = 2**20
STEPS = 200_000
ACTUAL = 12
"""How many times more Python may need than was counted: a number in a list counts as two words."""
SLACK = 8 * 2**20
"""For compiled code and caches."""


@pytest.fixture(scope="module", autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def most_built(*texts: str) -> int:
    """Return the most bytes at a time that evaluating these out of one budget has taken."""
    evaluation = Evaluation(
        {"wide": "ä" * 50_000, "list": list(range(1_000)), "map": {str(n): n for n in range(500)}},
        seed=1,
        budget=Budget(STEPS, BYTES),
    )
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    for text in texts:
        try:
            evaluation.value(text)
        except ExpressionError:
            continue
    return tracemalloc.get_traced_memory()[1] - before


COSTLY = [
    "replace(repeat('a', 100000), 'a', repeat('b', 160))",
    "repeat('ä', 1000000)",
    "repeat('x', 1000000) + repeat('y', 1000000)",
    "join(map(1..1000, repeat('a', 10000)), ', ')",
    "map(1..1000, take(list, 1000))",
    "map(1..1000, list[0:1000])",
    "map(1..100000, [])",
    "map(1..100000, [1, 2, 3])",
    "map(1..100000, {'a': #})",
    "map(1..1000, split(wide, ''))",
    "map(1..1000, splitAfter(repeat('a,', 1000), ','))",
    "map(1..1000, upper(wide))",
    "map(1..1000, trim(wide))",
    "map(wide, #)",
    "map(1..100000, wide[#])",
    "map(1..1000, string(list))",
    "map(1..1000, toJSON(list))",
    "toJSON(repeat('\\n', 1000000))",
    "toJSON({repeat('\"', 900000): 1})",
    "toBase64(repeat('a', 1000000))",
    "fromBase64(repeat('aaaa', 250000))",
    "fromJSON('[' + repeat('{},', 100000) + '1]')",
    "fromJSON('[' + repeat('[],', 100000) + '1]')",
    "reduce(1..1000, #acc + #acc, 'x')",
    "reduce(1..1000, concat(#acc, #acc), [1])",
    "flatten(reduce(1..1000, [#acc, #acc], 1))",
    "groupBy(1..100000, #)",
    "sortBy(1..100000, -#)",
    "fromPairs(map(1..100000, [#, #]))",
    "toPairs(map)[0:1] == toPairs(map)",
    "map(1..1000, toPairs(map))",
    "map(1..1000, uniq(list))",
    "now().Format(repeat('January', 100000))",
    "map(1..100000, now().Format('Monday'))",
    "date('x', repeat('2222', 250000))",
    "date(repeat('x', 100000), repeat('xxxxx', 100000))",
    "timezone(repeat('a', 1000000))",
    "map(1..100000, float(repeat('1', 1000)))",
    "sequence(0, 1000000)",
]


@pytest.mark.parametrize("text", COSTLY)
def test_what_is_built_is_counted_before_it_is_built(text: str) -> None:
    assert most_built(text, text, text) < ACTUAL * BYTES + SLACK


lists = st.recursive(
    st.sampled_from(["list", "1..500", "split(wide, '')", "['a', 'b']", "keys(map)", "[]"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["map", "filter", "sortBy", "groupBy"]), inner, inner).map(
            lambda made: (
                f"{made[0]}({made[1]}, {'true' if made[0] == 'filter' else f'len({made[2]})'})"
            )
        ),
        st.tuples(inner, inner).map(lambda pair: f"map({pair[0]}, {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"concat({pair[0]}, {pair[1]})"),
        inner.map(lambda made: f"reduce(1..30, concat(#acc, {made}), [])"),
        inner.map(lambda made: f"split(string({made}), ' ')"),
        inner.map(lambda made: f"fromJSON(toJSON({made}))"),
        inner.map(lambda made: f"[replace(string({made}), ' ', repeat('z', 999))]"),
        inner.map(lambda made: f"[join(map({made}, string(#)), wide)]"),
    ),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.lists(lists, min_size=1, max_size=3))
def test_no_costly_expressions_build_more_than_their_budget(texts: list[str]) -> None:
    assert most_built(*texts) < ACTUAL * BYTES + SLACK


def test_templates_that_share_a_budget_use_it_up_together() -> None:
    evaluation = Evaluation({}, budget=Budget())
    template = "{{ len(replace(repeat('a', 100000), 'a', repeat('b', 100))) }}"
    assert render_within(evaluation, template) == "10000000"
    with pytest.raises(ExpressionError, match=f"more than {MAX_BYTES:,} bytes"):
        render_within(evaluation, template)


def test_an_evaluation_that_begins_with_few_steps_begins_anew_elsewhere() -> None:
    with pytest.raises(OutOfTurn):
        Evaluation({}, budget=Budget(first=100)).value("sum(1..100000)")
    assert Evaluation({}, budget=Budget(first=1_000)).value("1 + 1") == 2
    with pytest.raises(ExpressionError, match="more than 100 steps"):
        Evaluation({}, budget=Budget(100, first=1_000)).value("sum(1..100000)")


def test_chance_is_the_same_in_every_template_of_an_evaluation() -> None:
    evaluation = Evaluation({}, seed=7, budget=Budget())
    template = "{{ randomInt(1000000) }}"
    assert render_within(evaluation, template) == render_within(evaluation, template)


def test_names_whose_reading_is_beyond_the_budget_may_be_any() -> None:
    assert names_in("{{ tasks.a }}").keys == {"tasks": frozenset({"a"})}
    assert names_in("{{ tasks.a }}", Budget(10)).whole


def test_regular_expressions_cost_what_they_take() -> None:
    many = "{{ 'x' matches 'a{900}' }}" * 3_000
    with pytest.raises(ExpressionError, match="more than 5,000,000 steps"):
        check_template(many)
    env = {f"A{n}": f"{{{{ 'x' matches 'a{{900}}{n}' }}}}" for n in range(3_000)}
    body = {"name": "j", "tasks": [{"name": "t", "image": "i", "env": env}]}
    began = time.monotonic()
    with pytest.raises(InvalidDocument, match="more than 5,000,000 steps"):
        decode_job(msgspec.json.encode(body), "json")
    assert time.monotonic() - began < 60
    text = "repeat('ab', 500000) matches '(?:[ab]*a[ab]{100}c){3}$'"
    with pytest.raises(ExpressionError, match="steps"):
        Evaluation({}, budget=Budget(1_000_000)).value(text)
    assert evaluate_template("count(1..10000, 'a1b' matches ('^[a-z]+' + '[0-9]'))", {}) == 10_000
