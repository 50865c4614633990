"""The expression language of jobs: expr-lang 1.17, with limits (the job format, Expressions).

`evaluate_template` gives a value, `render` a text; `evaluate_field` is for the fields that are expressions,
bare or in braces. `check_template` and `check_field` refuse what cannot work, `names_in` and `names_in_field`
tell what a text needs of its scope. All raise ExpressionError and nothing else.
"""

from __future__ import annotations

from shared.expressions.errors import ExpressionError, FaultKind
from shared.expressions.evaluation import Evaluation
from shared.expressions.grammar.names import Names
from shared.expressions.limits import Budget, OutOfTurn
from shared.expressions.results import to_plain
from shared.expressions.templates import (
    check_field,
    check_template,
    evaluate_field,
    evaluate_template,
    field_within,
    names_in,
    names_in_field,
    render,
    render_within,
)
from shared.expressions.values.durations import Duration
from shared.expressions.values.formatting import format_value
from shared.expressions.values.kinds import Month, Table, Texts, TooManyTexts, Weekday
from shared.expressions.values.moments import Time

__all__ = [
    "Budget",
    "Duration",
    "Evaluation",
    "ExpressionError",
    "FaultKind",
    "Month",
    "Names",
    "OutOfTurn",
    "Table",
    "Texts",
    "Time",
    "TooManyTexts",
    "Weekday",
    "check_field",
    "check_template",
    "evaluate_field",
    "evaluate_template",
    "field_within",
    "format_value",
    "names_in",
    "names_in_field",
    "render",
    "render_within",
    "to_plain",
]
