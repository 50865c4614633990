"""The tree of an expression. Each node knows its place in the text, its height and its size.

Nodes are dataclasses, unlike all other records: `depth` and `size` have values but are no parameters, and stand before
those that are; msgspec has no such fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class SyntaxNode:
    """Anything in the tree."""

    position: int
    depth: int = field(init=False, default=1)
    size: int = field(init=False, default=1)

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return ()


@dataclass(slots=True, eq=False)
class Literal(SyntaxNode):
    """A whole number, a float, a text, a boolean or nil, written out."""

    value: int | float | str | bool | None


@dataclass(slots=True, eq=False)
class Name(SyntaxNode):
    """A name of the scope, of a `let`, or `$env`."""

    name: str


@dataclass(slots=True, eq=False)
class Pointer(SyntaxNode):
    """`#` (name empty), `#index` or `#acc`."""

    name: str


@dataclass(slots=True, eq=False)
class Unary(SyntaxNode):
    """`not x`, `!x`, `-x` or `+x`."""

    operator: str
    operand: SyntaxNode

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.operand,)


@dataclass(slots=True, eq=False)
class Binary(SyntaxNode):
    """Two operands and what stands between."""

    operator: str
    left: SyntaxNode
    right: SyntaxNode

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.left, self.right)


@dataclass(slots=True, eq=False)
class Member(SyntaxNode):
    """`base.key` or `base[key]`; with `?.` it gives up quietly when the base is nil."""

    base: SyntaxNode
    key: SyntaxNode
    optional: bool = False

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.base, self.key)


def written_name(node: SyntaxNode) -> str:
    """Return what a person calls a value by, the last of `tasks.notes.authors`; empty where it has no name."""
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Member) and isinstance(node.key, Literal):
        return node.key.value if isinstance(node.key.value, str) else ""
    return ""


@dataclass(slots=True, eq=False)
class Chain(SyntaxNode):
    """The extent of what a `?.` gives up."""

    inner: SyntaxNode

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.inner,)


@dataclass(slots=True, eq=False)
class Slice(SyntaxNode):
    """`base[start:stop]`."""

    base: SyntaxNode
    start: SyntaxNode | None
    stop: SyntaxNode | None

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.base, self.start, self.stop)


@dataclass(slots=True, eq=False)
class Call(SyntaxNode):
    """A call of a function of the scope or of a method."""

    callee: SyntaxNode
    arguments: tuple[SyntaxNode, ...]

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.callee, *self.arguments)


@dataclass(slots=True, eq=False)
class Builtin(SyntaxNode):
    """A call of a function of the language."""

    name: str
    arguments: tuple[SyntaxNode, ...]

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return self.arguments


@dataclass(slots=True, eq=False)
class Predicate(SyntaxNode):
    """What a loop evaluates for each element."""

    body: SyntaxNode

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.body,)


@dataclass(slots=True, eq=False)
class Let(SyntaxNode):
    """`let name = value; body`."""

    name: str
    value: SyntaxNode
    body: SyntaxNode

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.value, self.body)


@dataclass(slots=True, eq=False)
class Sequence(SyntaxNode):
    """`a; b; c`, worth its last."""

    parts: tuple[SyntaxNode, ...]

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return self.parts


@dataclass(slots=True, eq=False)
class Conditional(SyntaxNode):
    """`a ? b : c` and `if a {b} else {c}`."""

    condition: SyntaxNode
    then: SyntaxNode
    otherwise: SyntaxNode

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return (self.condition, self.then, self.otherwise)


@dataclass(slots=True, eq=False)
class Array(SyntaxNode):
    """`[a, b]`."""

    items: tuple[SyntaxNode, ...]

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return self.items


@dataclass(slots=True, eq=False)
class Map(SyntaxNode):
    """`{key: value}`."""

    pairs: tuple[tuple[SyntaxNode, SyntaxNode], ...]

    def children(self) -> tuple[SyntaxNode | None, ...]:
        """Return the nodes right below."""
        return tuple(node for pair in self.pairs for node in pair)
