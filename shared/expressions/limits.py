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
MAX_STEPS = 5_000_000
"""Parts evaluated out of one budget, loops counted as often as they run (a few seconds); a setting."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes of all texts, lists and maps built out of one budget; a setting."""
MAX_ITEMS = 1_000_000
"""Elements of a value that is written out, and of a list that one call makes."""
MAX_VALUE_DEPTH = 100
"""Lists and maps inside one another, in a value read from JSON or given back."""
MAX_PATTERN = 8_192
"""Characters of a regular expression."""
MAX_LAYOUT = 1_000
"""Characters of the layout of a date."""
MAX_TEMPLATE = 4 * 1024 * 1024
"""Characters of a template."""
MAX_EXPRESSIONS = 131_072
"""Characters of all the expressions of one template."""
MAX_RENDERED = 16 * 1024 * 1024
"""Characters of a rendered template, or of any value as text."""

_EXPRESSION_STEPS, _CHARACTER_STEPS = 50, 16
"""Steps that it costs to make sense of an expression, and of each of its characters."""
_TEXT_PER_STEP = 256
"""Characters handled that cost as much as one step."""
_ELEMENTS_PER_STEP = 16
"""Elements put into a list that cost as much as one step."""
ELEMENT_BYTES = 16
"""Bytes that an element of a list counts as, whatever it is; what it holds itself was counted before."""
ENTRY_ELEMENTS = 4
"""Elements that a map counts as, and each of its entries."""
TEXT_ELEMENTS = 4
"""Elements that each of many texts counts as which one call makes."""
TEXT_BYTES = 48
"""Bytes that a text counts as besides its characters."""
_WIDE_BYTES = 4
"""Bytes that each character of a text counts as which is not all ASCII."""
PATTERN_STEPS = 2_500
"""Steps that it costs to compile a regular expression, besides one for each of its instructions."""
_MATCHED_PER_STEP = 128
"""Characters times instructions of a regular expression that cost as much as one step."""


class OutOfTurn(Exception):
    """The steps that an evaluation may begin with are used up: it is to begin anew where it holds nobody up."""


def width(text: str) -> int:
    """Return how many bytes each character of a text counts as."""
    return 1 if text.isascii() else _WIDE_BYTES


class Budget:
    """What is left of the steps and bytes that some evaluations share. Raises a `limit` fault when they are used up.

    With `first`, no more than so many steps are taken: then it raises `OutOfTurn`.
    """

    __slots__ = ("_bytes", "_patterns", "_short", "_steps", "bytes", "steps")

    def __init__(
        self, steps: int = MAX_STEPS, bytes: int = MAX_BYTES, *, first: int | None = None
    ) -> None:
        self._steps, self._bytes = steps, bytes
        self._short = first is not None and first < steps
        self._patterns: set[str] = set()
        self.steps = first if first is not None and self._short else steps
        self.bytes = bytes

    def step(self, count: int = 1) -> None:
        """Take `count` steps."""
        self.steps -= count
        if self.steps < 0:
            if self._short:
                raise OutOfTurn
            raise limit_error(f"this takes more than {self._steps:,} steps")

    def take(self, count: int) -> None:
        """Take `count` bytes; asked before they are built."""
        self.bytes -= count
        if self.bytes < 0:
            raise limit_error(f"this builds more than {self._bytes:,} bytes")

    def build(self, count: int) -> None:
        """Take the room for `count` elements of a list, and the steps of making it; asked before it is made."""
        if count > MAX_ITEMS:
            raise limit_error(f"this builds a list of more than {MAX_ITEMS:,} elements")
        self.take(ELEMENT_BYTES * count)
        self.step(1 + count // _ELEMENTS_PER_STEP)

    def write(self, count: int, *like: str) -> None:
        """Take the room for a text of `count` characters made of texts `like` these, and the steps of writing it;
        asked before it is written."""
        wide = 1 if all(map(str.isascii, like)) else _WIDE_BYTES
        self.take(TEXT_BYTES + count * wide)
        self.read(count * wide)

    def parse(self, count: int) -> None:
        """Take the steps for making sense of an expression of `count` characters."""
        self.step(_EXPRESSION_STEPS + _CHARACTER_STEPS * count)

    def read(self, count: int) -> None:
        """Take the steps for going once through `count` characters."""
        self.step(1 + count // _TEXT_PER_STEP)

    def compile(self, pattern: str) -> None:
        """Take the steps for compiling a regular expression; asked before, and taken once for each."""
        if pattern not in self._patterns:
            self.step(PATTERN_STEPS)
            self._patterns.add(pattern)

    def match(self, count: int, instructions: int) -> None:
        """Take the steps for looking for a regular expression of so many instructions in `count` characters."""
        self.step(1 + instructions + count * instructions // _MATCHED_PER_STEP)
