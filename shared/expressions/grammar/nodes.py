"""The tree of an expression. Each node knows its place in the text, its height and its size."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Node:
    """Anything in the tree."""

    position: int
    depth: int = field(init=False, default=1)
    size: int = field(init=False, default=1)

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return ()


@dataclass(slots=True, eq=False)
class Literal(Node):
    """A whole number, a float, a text, a boolean or nil, written out."""

    value: int | float | str | bool | None


@dataclass(slots=True, eq=False)
class Name(Node):
    """A name of the scope, of a `let`, or `$env`."""

    name: str


@dataclass(slots=True, eq=False)
class Pointer(Node):
    """`#` (name empty), `#index` or `#acc`."""

    name: str


@dataclass(slots=True, eq=False)
class Unary(Node):
    """`not x`, `!x`, `-x` or `+x`."""

    operator: str
    operand: Node

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.operand,)


@dataclass(slots=True, eq=False)
class Binary(Node):
    """Two operands and what stands between."""

    operator: str
    left: Node
    right: Node

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.left, self.right)


@dataclass(slots=True, eq=False)
class Member(Node):
    """`base.key` or `base[key]`; with `?.` it gives up quietly when the base is nil."""

    base: Node
    key: Node
    optional: bool = False

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.base, self.key)


@dataclass(slots=True, eq=False)
class Chain(Node):
    """The extent of what a `?.` gives up."""

    inner: Node

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.inner,)


@dataclass(slots=True, eq=False)
class Slice(Node):
    """`base[start:stop]`."""

    base: Node
    start: Node | None
    stop: Node | None

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.base, self.start, self.stop)


@dataclass(slots=True, eq=False)
class Call(Node):
    """A call of a function of the scope or of a method."""

    callee: Node
    arguments: tuple[Node, ...]

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.callee, *self.arguments)


@dataclass(slots=True, eq=False)
class Builtin(Node):
    """A call of a function of the language."""

    name: str
    arguments: tuple[Node, ...]

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return self.arguments


@dataclass(slots=True, eq=False)
class Predicate(Node):
    """What a loop evaluates for each element."""

    body: Node

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.body,)


@dataclass(slots=True, eq=False)
class Let(Node):
    """`let name = value; body`."""

    name: str
    value: Node
    body: Node

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.value, self.body)


@dataclass(slots=True, eq=False)
class Sequence(Node):
    """`a; b; c`, worth its last."""

    parts: tuple[Node, ...]

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return self.parts


@dataclass(slots=True, eq=False)
class Conditional(Node):
    """`a ? b : c` and `if a {b} else {c}`."""

    condition: Node
    then: Node
    otherwise: Node

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return (self.condition, self.then, self.otherwise)


@dataclass(slots=True, eq=False)
class Array(Node):
    """`[a, b]`."""

    items: tuple[Node, ...]

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return self.items


@dataclass(slots=True, eq=False)
class Map(Node):
    """`{key: value}`."""

    pairs: tuple[tuple[Node, Node], ...]

    def children(self) -> tuple[Node | None, ...]:
        """The nodes right below."""
        return tuple(node for pair in self.pairs for node in pair)
