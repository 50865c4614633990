"""The order in which several owners' work is begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")

_NONE: Mapping[Any, int] = {}


def in_turn(
    items: Iterable[_T], owner: Callable[[_T], Hashable], had: Mapping[Any, int] = _NONE
) -> list[_T]:
    """Return items so that the first of each owner comes before the second of any; in order otherwise.

    `had`: how many turns owners have had already."""
    turns = Counter(had)

    def turn(item: _T) -> int:
        turns[owner(item)] += 1
        return turns[owner(item)]

    return sorted(items, key=turn)
