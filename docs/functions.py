"""Generates the page of expressions: every operator and function with an example, whose value is worked out here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from shared.expressions import evaluate_template, render

NOW: Final = datetime(2026, 11, 24, 9, 38, tzinfo=UTC)
SCOPE: Final[dict[str, Any]] = {
    "inputs": {"name": "Ada", "count": "3"},
    "tasks": {"list": '["b","a"]'},
    "secrets": {},
    "job": {"id": "5b0c"},
    "item": {"index": "0", "value": {"name": "Bo", "age": 25}},
}

_INTRODUCTION: Final = """\
# Expressions

This page is generated from the code (`make docs`): each value in it is what the example gives.

In template fields, `{{ … }}` is an expression of the language [expr](https://expr-lang.org/docs/language-definition),
version 1.17, with [limits](../reliability.md). `if` and `each.list` are expressions with or without the braces. An
expression can use `inputs.<name>`, `secrets.<name>`, `tasks.<var>` (the result of an earlier task), `job.id` and other
fields of the job, and inside `each` the item, as `item.value` and `item.index`. Inputs, secrets and results are texts:
to reckon with a number, write `int(inputs.count)`, and to take a list from JSON, `fromJSON(tasks.list)`.

In the examples, `inputs.name` is `Ada`, `inputs.count` is `3`, `tasks.list` is `["b","a"]`, `item.value` is
`{"name": "Bo", "age": 25}`, and it is 09:38 on 24 November 2026.
"""

_OPERATORS: Final = (
    ("`+` `-` `*` `/` `%` `**`", "arithmetic; `/` of two whole numbers is a fraction", "7 / 2"),
    ("`+`", "texts put together", '"Hello " + inputs.name'),
    ("`==` `!=` `<` `>` `<=` `>=`", "comparison", "int(inputs.count) >= 3"),
    ("`and` `or` `not`", "also `&&`, `\\|\\|` and `!`", 'inputs.count == "3" and not false'),
    ("`in`", "an element of a list, or a key of a map", '"a" in ["a", "b"]'),
    ("`contains` `startsWith` `endsWith`", "parts of texts", 'inputs.name startsWith "A"'),
    ("`matches`", "a regular expression (RE2)", 'inputs.name matches "^A.a$"'),
    ("`? :`", "a choice", 'inputs.name == "Ada" ? "her" : "not her"'),
    ("`??`", "another value for nil", 'get(item.value, "size") ?? "none"'),
    ("`..`", "whole numbers from one to another", "1..4"),
    ("`[ ]` `.` `?.`", "elements and fields; `?.` gives nil where there is none", "item.value?.age"),
    ("`[a:b]`", "a part of a list or text", '"abcdef"[1:3]'),
    ("`\\|`", "passes a value on as the first argument", '"Hi" | lower() | repeat(2)'),
    ("`let`", "a name for a value", "let n = int(inputs.count); n * n"),
    ("`{ }` in functions", "a predicate; `#` is the element, `.name` a field of it", "filter([1, 2, 3], # > 1)"),
)  # fmt: skip

_PEOPLE: Final = '[{"name": "Ann", "age": 31}, {"name": "Bo", "age": 25}]'

FUNCTIONS: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "Texts": (
        ("trim", "without spaces at both ends, or the characters that are given", 'trim("  a b ")'),
        ("trimPrefix", "without a beginning", 'trimPrefix("v1.2", "v")'),
        ("trimSuffix", "without an end", 'trimSuffix("a.mp4", ".mp4")'),
        ("upper", "in upper case", "upper(inputs.name)"),
        ("lower", "in lower case", "lower(inputs.name)"),
        ("split", "cut at a separator, at most so many parts", 'split("a,b,c", ",", 2)'),
        ("splitAfter", "cut after each separator", 'splitAfter("a,b", ",")'),
        ("replace", "each occurrence replaced", 'replace("a-b-c", "-", "+")'),
        ("repeat", "so many times", 'repeat("ab", 3)'),
        ("join", "a list of texts put together", 'join(["a", "b"], "-")'),
        ("indexOf", "place of the first occurrence, from 0; -1 for none", 'indexOf("banana", "an")'),
        ("lastIndexOf", "place of the last", 'lastIndexOf("banana", "an")'),
        ("hasPrefix", "whether it begins so", 'hasPrefix(inputs.name, "A")'),
        ("hasSuffix", "whether it ends so", 'hasSuffix("a.mp4", ".mp4")'),
    ),
    "Numbers": (
        ("abs", "without its sign", "abs(-5)"),
        ("ceil", "rounded up", "ceil(1.2)"),
        ("floor", "rounded down", "floor(1.8)"),
        ("round", "rounded to the nearest", "round(1.5)"),
        ("max", "the largest", "max(1, 7, 3)"),
        ("min", "the smallest, of a list too", "min([4, 2])"),
        ("mean", "the average", "mean([1, 2, 6])"),
        ("median", "the one in the middle", "median([1, 2, 6])"),
        ("bitand", "bits of both", "bitand(12, 10)"),
        ("bitor", "bits of either", "bitor(12, 10)"),
        ("bitxor", "bits of one", "bitxor(12, 10)"),
        ("bitnand", "bits of the first that the second lacks", "bitnand(12, 10)"),
        ("bitnot", "all bits turned round", "bitnot(5)"),
        ("bitshl", "shifted left", "bitshl(1, 4)"),
        ("bitshr", "shifted right", "bitshr(-16, 2)"),
        ("bitushr", "shifted right without the sign", "bitushr(16, 2)"),
        ("randomInt", "by chance, from 0 to below a bound; the same at each evaluation", "randomInt(1)"),
        ("sequence", "whole numbers from one to below another", "sequence(2, 5)"),
    ),
    "Lists and maps": (
        ("len", "number of elements or characters", "len([1, 2])"),
        ("first", "the first; nil for none", "first([3, 4])"),
        ("last", "the last; nil for none", "last([3, 4])"),
        ("get", "an element or field; nil where there is none", 'get(item.value, "size")'),
        ("take", "the first so many", "take([1, 2, 3], 2)"),
        ("reverse", "from the end", "reverse([1, 2, 3])"),
        ("sort", 'in order; `"desc"` for the other way', 'sort([2, 3, 1], "desc")'),
        ("uniq", "each once", "uniq([1, 2, 1])"),
        ("concat", "lists put together", "concat([1], [2, 3])"),
        ("flatten", "lists in a list made one", "flatten([1, [2, [3]]])"),
        ("keys", "the keys of a map", "keys(item.value) | sort()"),
        ("values", "the values of a map", 'values({"a": 1})'),
        ("toPairs", "a map as pairs", 'toPairs({"a": 1})'),
        ("fromPairs", "pairs as a map", 'fromPairs([["a", 1]])'),
    ),
    "Functions with a predicate": (
        ("all", "whether it holds for all", "all([1, 2], # > 0)"),
        ("any", "whether it holds for any", "any([1, 2], # > 1)"),
        ("one", "whether it holds for exactly one", "one([1, 2], # > 1)"),
        ("none", "whether it holds for none", "none([1, 2], # > 2)"),
        ("map", "what each becomes", f"map({_PEOPLE}, .name)"),
        ("filter", "those for which it holds", "filter([1, 2, 3, 4], # % 2 == 0)"),
        ("find", "the first; nil for none", f"find({_PEOPLE}, .age < 30).name"),
        ("findIndex", "its place", "findIndex([5, 6, 7], # > 5)"),
        ("findLast", "the last", "findLast([5, 6, 7], # > 5)"),
        ("findLastIndex", "its place", "findLastIndex([5, 6, 7], # > 5)"),
        ("count", "for how many it holds", "count([1, 2, 3], # > 1)"),
        ("sum", "the sum, of what each becomes", f"sum({_PEOPLE}, .age)"),
        ("groupBy", "by what each becomes", "groupBy([1, 2, 3], # % 2)"),
        ("sortBy", "in order of what each becomes", f"map(sortBy({_PEOPLE}, .age), .name)"),
        ("reduce", "to one value; `#acc` is what there is so far", "reduce([1, 2, 3], #acc + #, 10)"),
    ),
    "Conversions": (
        ("int", "a whole number", "int(inputs.count) + 1"),
        ("float", "a number", 'float("1.5")'),
        ("string", "a text", "string(5) + string(true)"),
        ("type", "the name of its type", "type([1])"),
        ("toJSON", "as JSON", "toJSON(item.value)"),
        ("fromJSON", "from JSON", "fromJSON(tasks.list)"),
        ("toBase64", "in base64", 'toBase64("Ada")'),
        ("fromBase64", "from base64", 'fromBase64("QWRh")'),
    ),
    "Times": (
        ("now", "when the task is evaluated", 'now().Format("2006-01-02")'),
        ("date", "a time, from a text; with a layout and a time zone, if need be", 'date("2026-01-31").Weekday()'),
        ("duration", "a span of time", 'duration("90m").Hours()'),
        ("timezone", "a time zone", 'date("2026-01-31 12:00", "2006-01-02 15:04", "UTC").In(timezone("Asia/Tokyo"))'),
    ),
}  # fmt: skip
"""By group: name, what it gives, and an example."""


def page() -> str:
    """Return the page, in Markdown."""
    parts = [_INTRODUCTION, "## Operators\n"]
    parts.append(_table("operator", ((name, about, text) for name, about, text in _OPERATORS)))
    for group, functions in FUNCTIONS.items():
        parts.append(f"## {group}\n")
        parts.append(_table("function", ((f"`{name}`", *rest) for name, *rest in functions)))
    return "\n".join(parts)


def _table(what: str, rows: Any) -> str:
    lines = [f"| {what} | | example | gives |", "|---|---|---|---|"]
    for name, about, example in rows:
        cells = (name, about, _code(example), _code(value_of(example)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def value_of(example: str) -> str:
    """Return what an expression gives: as JSON, or as a template shows it where it is nothing of JSON's."""
    try:
        return json.dumps(evaluate_template(example, SCOPE, now=NOW, seed=1), ensure_ascii=False)
    except TypeError:
        return render(f"{{{{ {example} }}}}", SCOPE, now=NOW, seed=1)


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
