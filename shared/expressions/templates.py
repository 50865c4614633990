"""Texts with expressions in braces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import reduce

from shared.expressions.errors import ExpressionError, limit_error
from shared.expressions.evaluation import Evaluation, check_expression, parsed
from shared.expressions.grammar.names import Names
from shared.expressions.limits import MAX_EXPRESSIONS, MAX_RENDERED, MAX_TEMPLATE
from shared.expressions.results import finished
from shared.expressions.values.formatting import format_value
from shared.expressions.values.strings import adopted, presented

_OPEN, _CLOSE = "{{", "}}"


def parts(template: str) -> list[str]:
    """Return the template cut up: plain text and expressions by turns, plain text first and last. Raises a
    `limit` fault where it, or all the expressions in it, are too long.

    An expression goes from `{{` to the next `}}` and is not empty, with no line break inside; all
    else is plain text. Takes time linear in the template, so no regular expression: one looks for
    an end anew at each of many unclosed `{{`.
    """
    if len(template) > MAX_TEMPLATE:
        raise limit_error(f"the template has more than {MAX_TEMPLATE:,} characters")
    pieces: list[str] = []
    done = start = line_end = 0
    while (start := template.find(_OPEN, start)) >= 0:
        if start >= line_end:
            line_end = _line_end(template, start)
        inside = start + len(_OPEN)
        end = template.find(_CLOSE, inside + 1, line_end)
        if end < 0:
            start = line_end
            continue
        pieces += (template[done:start], template[inside:end])
        done = start = end + len(_CLOSE)
    if sum(map(len, pieces[1::2])) > MAX_EXPRESSIONS:
        raise limit_error(
            f"the template's expressions have more than {MAX_EXPRESSIONS:,} characters"
        )
    return [*pieces, template[done:]]


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
    return finished_within(Evaluation(scope, now=now, seed=seed).value(text), text)


def finished_within(value: object, text: str) -> object:
    """Return the value made plain, a fault of it knowing the expression."""
    try:
        return finished(value)
    except ExpressionError as error:
        raise error.within(text) from None


def evaluate_field(
    field: str, scope: Mapping[str, object], *, now: datetime | None = None, seed: int | None = None
) -> object:
    """Return the value of a field that is an expression, bare or in braces (`if`, `each.list`). One with
    text around the braces, or with several pairs of them, is a template, worth the text it renders."""
    pieces = parts(field)
    whole = len(pieces) == 3 and not pieces[0].strip() and not pieces[2].strip()
    if len(pieces) == 1 or whole:
        return evaluate_template(pieces[1] if whole else field, scope, now=now, seed=seed)
    return render(field, scope, now=now, seed=seed)


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
    pieces = parts(template)
    if len(pieces) == 1:
        return template
    evaluation = Evaluation(scope, now=now, seed=seed)
    left = MAX_RENDERED
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = _rendered(evaluation, piece)
        left -= len(pieces[index])
        if left < 0:
            raise limit_error(f"the template becomes longer than {MAX_RENDERED:,} characters")
    return presented("".join(pieces))


def _rendered(evaluation: Evaluation, text: str) -> str:
    try:
        return format_value(evaluation.value(text))
    except ExpressionError as error:
        raise error.within(text) from None


def check_template(template: str) -> None:
    """Refuse a template with an expression that cannot work whatever the scope holds.

    Raises the fault: kind `syntax`, or `name` for an unknown function or wrong arguments.
    """
    for text in parts(template)[1::2]:
        check_expression(text)


def check_field(field: str) -> None:
    """Refuse a field that is an expression, bare or in braces, as `check_template` does."""
    pieces = parts(field)
    for text in [field] if len(pieces) == 1 else pieces[1::2]:
        check_expression(text)


def names_in(template: str) -> Names:
    """Return the names that the expressions of a template speak of. An expression that is none counts as
    speaking of everything, since only its evaluation says what is wrong with it."""
    return reduce(Names.joined, map(_names, parts(template)[1::2]), Names())


def names_in_field(field: str) -> Names:
    """Return the names that a field speaks of which is an expression, bare or in braces."""
    pieces = parts(field)
    return reduce(Names.joined, map(_names, [field] if len(pieces) == 1 else pieces[1::2]), Names())


def _names(text: str) -> Names:
    try:
        return parsed(adopted(text)).names
    except ExpressionError:
        return Names(whole=True)
