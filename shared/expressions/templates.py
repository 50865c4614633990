"""Texts with expressions in braces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import reduce

from shared.expressions.errors import ExpressionError, limit_error
from shared.expressions.evaluation import Evaluation, check_expression, parsed
from shared.expressions.grammar.names import Names
from shared.expressions.limits import MAX_EXPRESSIONS, MAX_RENDERED, MAX_TEMPLATE, Budget
from shared.expressions.results import finished
from shared.expressions.values.formatting import format_value
from shared.expressions.values.strings import adopted, presented

_OPEN, _CLOSE = "{{", "}}"


def parts(template: str) -> list[str]:
    """Return the template cut up: plain text and expressions by turns, plain text first and last. Raises a
    `limit` fault where it, or all the expressions in it, are too long.

    An expression goes from `{{` to the next `}}` and is not empty, with no line break inside except
    beside the braces; all else is plain text. Takes time linear in the template, so no regular
    expression: one looks for an end anew at each of many unclosed `{{`.
    """
    if len(template) > MAX_TEMPLATE:
        raise limit_error(f"the template has more than {MAX_TEMPLATE:,} characters")
    pieces: list[str] = []
    done = start = line_end = 0
    while (start := template.find(_OPEN, start)) >= 0:
        inside = start + len(_OPEN)
        first = _past_space(template, inside)
        if first >= line_end:
            line_end = _line_end(template, first)
        end = _closed_at(template, inside, first, line_end)
        if end < 0:
            start = max(line_end, inside)
            continue
        pieces += (template[done:start], _on_one_line(template[inside:end]))
        done = start = end + len(_CLOSE)
    if sum(map(len, pieces[1::2])) > MAX_EXPRESSIONS:
        raise limit_error(
            f"the template's expressions have more than {MAX_EXPRESSIONS:,} characters"
        )
    return [*pieces, template[done:]]


_SPACE = re.compile(r"\s*")


def _past_space(template: str, start: int) -> int:
    found = _SPACE.match(template, start)
    return found.end() if found else start


def _closed_at(template: str, inside: int, first: int, line_end: int) -> int:
    """Return where the expression that begins at `first` ends: on its line, or after line breaks; -1 for nowhere."""
    end = template.find(_CLOSE, max(first, inside + 1), line_end)
    if end >= 0:
        return end if end > first or "\n" not in template[inside:first] else -1
    after = _past_space(template, line_end)
    return after if template.startswith(_CLOSE, after) else -1


def _on_one_line(text: str) -> str:
    return text.strip() if "\n" in text else text


def _line_end(template: str, start: int) -> int:
    end = template.find("\n", start)
    return len(template) if end < 0 else end


def evaluate_template(
    text: str, scope: Mapping[str, object], *, now: datetime | None = None, seed: int | None = None
) -> object:
    """Return the value of an expression (without braces).

    `scope` gives the names: maps of texts under `inputs`, `secrets`, `tasks` and `job`, anything like
    JSON under others. `now` and `seed` decide what `now()` and `randomInt()` give; by default they
    are the present and chance. Raises ExpressionError, and nothing else, for any text whatever.
    """
    return _plain_value(Evaluation(scope, now=now, seed=seed), text)


def _plain_value(evaluation: Evaluation, text: str) -> object:
    try:
        return finished(evaluation.value(text), evaluation.budget)
    except ExpressionError as error:
        raise error.within(text) from None


def evaluate_field(
    field: str, scope: Mapping[str, object], *, now: datetime | None = None, seed: int | None = None
) -> object:
    """Return the value of a field that is an expression, bare or in braces (`if`, `each.list`). One with
    text around the braces, or with several pairs of them, is a template, worth the text it renders."""
    return field_within(Evaluation(scope, now=now, seed=seed), field)


def field_within(evaluation: Evaluation, field: str) -> object:
    """Return the same in an evaluation, and out of its budget."""
    pieces = parts(field)
    text = _only_expression(field, pieces)
    if text is None:
        return _render(evaluation, pieces)
    evaluation.begin()
    return _plain_value(evaluation, text)


def _only_expression(field: str, pieces: list[str]) -> str | None:
    """Return the expression that a field is, bare or in braces; None where it is a template."""
    if len(pieces) == 1:
        return field
    whole = len(pieces) == 3 and not pieces[0].strip() and not pieces[2].strip()
    return pieces[1] if whole else None


def render(
    template: str,
    scope: Mapping[str, object],
    *,
    now: datetime | None = None,
    seed: int | None = None,
) -> str:
    """Return the template with each expression in braces replaced by the text of its value.

    Takes what `evaluate_template` takes. Raises ExpressionError for the first expression that fails, and
    where the text would be too long.
    """
    return render_within(Evaluation(scope, now=now, seed=seed), template)


def render_within(evaluation: Evaluation, template: str) -> str:
    """Return the same in an evaluation, and out of its budget."""
    pieces = parts(template)
    return template if len(pieces) == 1 else _render(evaluation, pieces)


def _render(evaluation: Evaluation, pieces: list[str]) -> str:
    evaluation.begin()
    left = MAX_RENDERED
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = _rendered(evaluation, piece)
        left -= len(pieces[index])
        if left < 0:
            raise limit_error(f"the template becomes longer than {MAX_RENDERED:,} characters")
    evaluation.budget.write(sum(map(len, pieces)), *pieces)
    return presented("".join(pieces))


def _rendered(evaluation: Evaluation, text: str) -> str:
    try:
        return format_value(evaluation.value(text), evaluation.budget)
    except ExpressionError as error:
        raise error.within(text).in_braces() from None


def check_template(template: str, budget: Budget | None = None) -> None:
    """Refuse a template with an expression that cannot work whatever the scope holds, or whose regular expressions
    are more than is left of `budget`.

    Raises the fault: kind `syntax`, or `name` for an unknown function or wrong arguments.
    """
    _check(parts(template), budget or Budget())


def _check(pieces: list[str], budget: Budget) -> None:
    for text in pieces[1::2]:
        try:
            check_expression(text, budget)
        except ExpressionError as error:
            raise error.in_braces() from None


def check_field(field: str, budget: Budget | None = None) -> None:
    """Refuse a field that is an expression, bare or in braces, as `check_template` does."""
    budget = budget or Budget()
    pieces = parts(field)
    text = _only_expression(field, pieces)
    if text is None:
        _check(pieces, budget)
    else:
        check_expression(text, budget)


def names_in(template: str, budget: Budget | None = None) -> Names:
    """Return the names that the expressions of a template speak of. An expression that is none, or whose reading
    is beyond `budget`, counts as speaking of everything, since only its evaluation says what is wrong with it."""
    return _all_names(parts(template)[1::2], budget)


def names_in_field(field: str, budget: Budget | None = None) -> Names:
    """Return the names that a field speaks of which is an expression, bare or in braces."""
    pieces = parts(field)
    return _all_names([field] if len(pieces) == 1 else pieces[1::2], budget)


def _all_names(texts: list[str], budget: Budget | None) -> Names:
    budget = budget or Budget()
    return reduce(Names.joined, (_names(text, budget) for text in texts), Names())


def _names(text: str, budget: Budget) -> Names:
    try:
        budget.parse(len(text))
        return parsed(adopted(text)).names
    except ExpressionError:
        return Names(whole=True)
