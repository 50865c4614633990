"""Every reference case gives the same value of the same kind and the same text, or the same error."""

from __future__ import annotations

from typing import Any

from shared.expressions import ExpressionError, evaluate_template, render
from tests.unit.expressions.expression_cases import expected, load, tagged

SCOPE, CASES = load()


def outcome(case: dict[str, Any]) -> dict[str, object]:
    try:
        value = evaluate_template(case["expr"], SCOPE)
        text = (
            render("{{" + case["expr"] + " }}", SCOPE)
            if "}}" not in case["expr"]
            else case.get("text")
        )
    except ExpressionError as fault:
        return {"error": fault.kind}
    return {"value": tagged(value), "text": text}


def wanted(case: dict[str, Any]) -> dict[str, object]:
    if "error" in case:
        return {"error": case["error"]}
    return {"value": expected(case["value"]), "text": case["text"]}


def test_all_cases_are_there() -> None:
    assert len(CASES) == 1_796


def test_every_case_gives_what_the_original_gives() -> None:
    wrong = [
        f"{case['expr']}: {got} instead of {want}"
        for case in CASES
        if (got := outcome(case)) != (want := wanted(case))
    ]
    assert not wrong, "\n".join(wrong[:20])
