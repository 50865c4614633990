"""How much one expression may ask for, and the purse that counts it."""

from __future__ import annotations

from shared.expressions.errors import limit_error

MAX_LENGTH = 65_536
"""Characters of one expression."""
MAX_TREE_NODES = 10_000
"""Parts (literals, names, operators, calls) of one expression."""
MAX_EXPRESSION_NESTING = 80
"""Brackets, calls, conditions and signs inside one another."""
MAX_TREE_DEPTH = 200
"""Levels of the parsed tree; a chain of operators of one rank counts one level for each."""
MAX_STEPS = 2_000_000
"""Parts evaluated in one evaluation, loops counted as often as they run (about a second)."""
MAX_ITEMS = 1_000_000
"""Elements of all lists and maps built by one evaluation."""
MAX_TEXT = 32 * 1024 * 1024
"""Characters of all texts built by one evaluation."""
MAX_VALUE_DEPTH = 100
"""Lists and maps inside one another, in a value read from JSON or given back."""
MAX_PATTERN = 8_192
"""Characters of a regular expression."""
MAX_TEMPLATE = 4 * 1024 * 1024
"""Characters of a template."""
MAX_EXPRESSIONS = 131_072
"""Characters of all the expressions of one template."""
MAX_RENDERED = 16 * 1024 * 1024
"""Characters of a rendered template, or of any value as text."""

_CHARACTER_STEPS = 4
"""Steps that it costs to read one character of an expression."""
_TEXT_PER_STEP = 256
"""Characters handled that cost as much as one step."""


class Budget:
    """What is left of the allowance of one evaluation. Raises a `limit` fault when it is used up."""

    __slots__ = ("items", "steps", "text")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.items = MAX_ITEMS
        self.text = MAX_TEXT

    def step(self, count: int = 1) -> None:
        """Take `count` steps."""
        self.steps -= count
        if self.steps < 0:
            raise limit_error(f"the expression takes more than {MAX_STEPS:,} steps")

    def build(self, count: int) -> None:
        """Take the room for `count` elements; asked before they are made."""
        self.items -= count
        if self.items <= 0:
            raise limit_error(f"the expression builds more than {MAX_ITEMS:,} elements")

    def write(self, count: int) -> None:
        """Take the room for `count` characters; asked before they are written."""
        self.text -= count
        if self.text < 0:
            raise limit_error(f"the expression builds more than {MAX_TEXT:,} characters of text")
        self.read(count)

    def parse(self, count: int) -> None:
        """Take the steps for making sense of an expression of `count` characters."""
        self.step(_CHARACTER_STEPS * count)

    def read(self, count: int) -> None:
        """Take the steps for going once through `count` characters."""
        self.step(1 + count // _TEXT_PER_STEP)
