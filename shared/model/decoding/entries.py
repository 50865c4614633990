"""The entries of a map once merges (`<<`) are followed and duplicates are found."""

from collections.abc import Iterator
from typing import NamedTuple

from shared.model.decoding.nodes import Bad, Entries, Items, Node, Text

MERGE = "<<"


class Entry(NamedTuple):
    """A key and its value."""

    key: Text
    value: Node


class Flawed(NamedTuple):
    """Something in a map that cannot be an entry: `name` where there is one."""

    name: str | None
    message: str
    offset: int


def is_merge(key: Node) -> bool:
    """Whether a key is YAML's merge key, which is only so where it stands without quotes."""
    return isinstance(key, Text) and key.bare and key.text == MERGE


def own_entries(node: Entries) -> tuple[dict[str, Entry], list[Node], list[Flawed]]:
    """What a map says itself, the values of its merges, and what is wrong with its keys."""
    own: dict[str, Entry] = {}
    merges: list[Node] = []
    flaws: list[Flawed] = []
    for key, value in node.pairs:
        if not isinstance(key, Text):
            message = key.message if isinstance(key, Bad) else "a key must be text"
            flaws.append(Flawed(None, message, key.offset))
        elif is_merge(key) and not merges:
            merges.extend(sources(value))
        elif key.text in own or is_merge(key):
            flaws.append(Flawed(key.text, "duplicate key", key.offset))
        else:
            own[key.text] = Entry(key, value)
    return own, merges, flaws


def sources(value: Node) -> Iterator[Node]:
    """The maps that a merge takes from, the first of them the strongest."""
    if isinstance(value, Items):
        yield from value.items
    else:
        yield value
