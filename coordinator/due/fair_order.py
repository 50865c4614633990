"""The order in which several owners' work is begun."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from itertools import chain, zip_longest
from typing import TypeVar

_T = TypeVar("_T")


def in_turn(items: Iterable[_T], owner: Callable[[_T], Hashable]) -> list[_T]:
    """Return items so that the first of each owner comes before the second of any; in order otherwise."""
    by_owner: dict[Hashable, list[_T]] = defaultdict(list)
    for item in items:
        by_owner[owner(item)].append(item)
    turns = zip_longest(*by_owner.values())
    return [item for item in chain.from_iterable(turns) if item is not None]
