"""Which names an expression speaks of."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shared.expressions.grammar.nodes import Let, Literal, Member, Name, SyntaxNode

ENVIRONMENT = "$env"
"""The name of the scope itself."""


class Names(msgspec.Struct, frozen=True):
    """The names of the scope that a text speaks of, and what of them where that is written out.

    `top` holds the names (`{"tasks", "inputs"}`); `whole` says that it may need any name (`$env`).
    `keys` maps a name to the keys asked of it (`{"tasks": {"size"}}`), or to None where it is used in
    a way that may need all of them.
    """

    top: frozenset[str] = frozenset()
    whole: bool = False
    keys: dict[str, frozenset[str] | None] = {}

    def joined(self, other: Names) -> Names:
        """Return what both speak of."""
        keys: dict[str, frozenset[str] | None] = dict(self.keys)
        for name, wanted in other.keys.items():
            known = keys.get(name, frozenset())
            keys[name] = None if known is None or wanted is None else known | wanted
        return Names(self.top | other.top, self.whole or other.whole, keys)


def names_in_tree(tree: SyntaxNode) -> Names:
    """Return the names that a tree speaks of, those of its own `let` among them."""
    keys: dict[str, set[str] | None] = {}
    whole = False
    for node, parent in _walk(tree):
        if isinstance(node, Let):
            keys[node.name] = None
        elif isinstance(node, Name):
            name, key = node.name, _key(node, parent)
            if name == ENVIRONMENT:
                whole = whole or key is None
                name, key = key or "", None
            _note(keys, name, key)
    keys.pop("", None)
    noted = {name: None if wanted is None else frozenset(wanted) for name, wanted in keys.items()}
    return Names(frozenset(noted), whole, noted)


def _note(keys: dict[str, set[str] | None], name: str, key: str | None) -> None:
    wanted = keys.setdefault(name, set())
    if key is None:
        keys[name] = None
    elif wanted is not None:
        wanted.add(key)


def _key(node: SyntaxNode, parent: SyntaxNode | None) -> str | None:
    if isinstance(parent, Member) and parent.base is node and isinstance(parent.key, Literal):
        return parent.key.value if isinstance(parent.key.value, str) else None
    return None


def _walk(tree: SyntaxNode) -> Iterator[tuple[SyntaxNode, SyntaxNode | None]]:
    pending: list[tuple[SyntaxNode, SyntaxNode | None]] = [(tree, None)]
    while pending:
        node, parent = pending.pop()
        yield node, parent
        pending.extend((child, node) for child in node.children() if child is not None)
