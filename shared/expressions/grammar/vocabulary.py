"""The words of the language: how tightly operators bind, and which functions loop."""

from __future__ import annotations

UNARY = {"not": 50, "!": 50, "-": 90, "+": 90}
"""How tightly each sign binds what follows it."""
BINARY = {
    "|": 0,
    **dict.fromkeys(["or", "||"], 10),
    **dict.fromkeys(["and", "&&"], 15),
    **dict.fromkeys(["==", "!=", "<", ">", ">=", "<="], 20),
    **dict.fromkeys(["in", "matches", "contains", "startsWith", "endsWith"], 20),
    "..": 25,
    **dict.fromkeys(["+", "-"], 30),
    **dict.fromkeys(["*", "/", "%"], 60),
    **dict.fromkeys(["**", "^"], 100),
    "??": 500,
}
"""How tightly each operator binds; all group to the left but `**` and `^`."""
GROUPS_RIGHT = frozenset(["**", "^"])
"""The operators of which the last binds first."""
COMPARISONS = frozenset(["<", ">", "<=", ">="])
"""The operators that chain: `a < b < c`."""
NEGATABLE = frozenset(["in", "matches", "contains", "startsWith", "endsWith"])
"""The operators that a `not` before them turns round."""
CONSTANTS = {"true": True, "false": False, "nil": None}
"""The words that are values."""

LOOPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["all", "none", "any", "one", "filter", "map"], ("value", "predicate")),
    **dict.fromkeys(["find", "findIndex", "findLast", "findLastIndex"], ("value", "predicate")),
    "groupBy": ("value", "predicate"),
    **dict.fromkeys(["count", "sum"], ("value", "predicate?")),
    **dict.fromkeys(["sortBy", "reduce"], ("value", "predicate", "value?")),
}
"""The functions that evaluate an expression for each element, and what they take."""
