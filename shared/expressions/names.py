"""Which names an expression speaks of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.expressions.syntax import Let, Literal, Member, Name, Node


@dataclass(frozen=True, slots=True)
class Names:
    """The names of the scope that a text speaks of, and what of them where that is written out.

    `top` holds the names (`{"tasks", "inputs"}`); `whole` says that it may need any name (`$env`).
    `keys` maps a name to the keys asked of it (`{"tasks": {"size"}}`), or to None where it is used in
    a way that may need all of them.
    """

    top: frozenset[str] = frozenset()
    whole: bool = False
    keys: dict[str, frozenset[str] | None] = field(default_factory=dict)

    def joined(self, other: Names) -> Names:
        """What both speak of."""
        keys: dict[str, frozenset[str] | None] = dict(self.keys)
        for name, wanted in other.keys.items():
            known = keys.get(name, frozenset())
            keys[name] = None if known is None or wanted is None else known | wanted
        return Names(self.top | other.top, self.whole or other.whole, keys)


def names_of(tree: Node) -> Names:
    """The names that a tree speaks of, those of its own `let` among them."""
    found = Names()
    for node, parent in _walk(tree):
        if isinstance(node, Let):
            found = found.joined(Names(top=frozenset([node.name]), keys={node.name: None}))
        elif isinstance(node, Name):
            found = found.joined(_named(node.name, _key(node, parent)))
    return found


def _named(name: str, key: str | None) -> Names:
    if name != "$env":
        return Names(frozenset([name]), keys={name: None if key is None else frozenset([key])})
    if key is None:
        return Names(whole=True)
    return Names(frozenset([key]), keys={key: None})


def _key(node: Node, parent: Node | None) -> str | None:
    if isinstance(parent, Member) and parent.base is node and isinstance(parent.key, Literal):
        return parent.key.value if isinstance(parent.key.value, str) else None
    return None


def _walk(tree: Node) -> Iterator[tuple[Node, Node | None]]:
    pending: list[tuple[Node, Node | None]] = [(tree, None)]
    while pending:
        node, parent = pending.pop()
        yield node, parent
        pending.extend((child, node) for child in node.children() if child is not None)
