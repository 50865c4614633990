"""The nodes of a parsed text, before types are applied: scalars as written, maps, lists.

A node is small (a hostile body may hold a hundred thousand) and knows only its offset; line and
column are computed for the few that have a problem.
"""

import bisect
import re
from collections.abc import Iterator
from typing import Final

import msgspec

MAX_VALUES: Final = 100_000
"""Values in one document, counted once each alias is written out."""

MAX_NESTING: Final = 100
"""How deep a document nests; sixteen composites in one another need 65."""

_LINE_END: Final = re.compile(r"\r\n?|\n")


class TextNode:
    """A scalar. `bare`: not in quotes, so its spelling may mean a number, a boolean or nothing."""

    __slots__ = ("bare", "offset", "text")

    def __init__(self, text: str, offset: int, *, bare: bool) -> None:
        self.text = text
        self.offset = offset
        self.bare = bare


class ListNode:
    """A list. `complete` once its end was read: an alias to an incomplete one is a recursion."""

    __slots__ = ("complete", "items", "offset")

    def __init__(self, offset: int) -> None:
        self.items: list[DocumentNode] = []
        self.offset = offset
        self.complete = False


class MapNode:
    """A map, its entries in order, merges and duplicates still in it."""

    __slots__ = ("complete", "offset", "pairs")

    def __init__(self, offset: int) -> None:
        self.pairs: list[tuple[DocumentNode, DocumentNode]] = []
        self.offset = offset
        self.complete = False


class BadNode:
    """A value that cannot be had, and why: an unknown alias, a recursion, a forbidden tag."""

    __slots__ = ("message", "offset")

    def __init__(self, message: str, offset: int) -> None:
        self.message = message
        self.offset = offset


DocumentNode = TextNode | ListNode | MapNode | BadNode


class BrokenText(Exception):
    """The text cannot be read on from `offset` (characters; None: nowhere in particular)."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class SourcePlace(msgspec.Struct, frozen=True):
    """A line and a column, both from 1."""

    line: int
    column: int


class SourceLines:
    """Finds the place of an offset in a text."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

    def place(self, offset: int) -> SourcePlace:
        """Return the line and column of an offset in characters."""
        line = bisect.bisect_right(self._starts, offset)
        return SourcePlace(line, offset - self._starts[line - 1] + 1)


MERGE = "<<"


class MapEntry(msgspec.Struct, frozen=True):
    """A key and its value."""

    key: TextNode
    value: DocumentNode


class Flawed(msgspec.Struct, frozen=True):
    """Something in a map that cannot be an entry: `name` where there is one."""

    name: str | None
    message: str
    offset: int


def is_merge(key: DocumentNode) -> bool:
    """Return whether a key is YAML's merge key, which is only so where it stands without quotes."""
    return isinstance(key, TextNode) and key.bare and key.text == MERGE


def own_entries(node: MapNode) -> tuple[dict[str, MapEntry], list[DocumentNode], list[Flawed]]:
    """Return what a map says itself, the values of its merges, and what is wrong with its keys."""
    own: dict[str, MapEntry] = {}
    merges: list[DocumentNode] = []
    flaws: list[Flawed] = []
    for key, value in node.pairs:
        if not isinstance(key, TextNode):
            message = key.message if isinstance(key, BadNode) else "a key must be text"
            flaws.append(Flawed(None, message, key.offset))
        elif is_merge(key) and not merges:
            merges.extend(_sources(value))
        elif key.text in own or is_merge(key):
            flaws.append(Flawed(key.text, "duplicate key", key.offset))
        else:
            own[key.text] = MapEntry(key, value)
    return own, merges, flaws


def _sources(value: DocumentNode) -> Iterator[DocumentNode]:
    """Yield the maps that a merge takes from, the first of them the strongest."""
    if isinstance(value, ListNode):
        yield from value.items
    else:
        yield value
