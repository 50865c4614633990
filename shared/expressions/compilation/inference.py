"""What is known of a scope, and of what is reached in it, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping

from shared.expressions.compilation.code import Code
from shared.expressions.errors import name_error
from shared.expressions.grammar.nodes import Literal, Member, Pointer, SyntaxNode
from shared.expressions.static_types import LIST, UNKNOWN, StaticType
from shared.expressions.values.methods import METHODS_BY_KIND


class Scope:
    """What is known of the scope before anything runs: its names, and the shapes of their values.

    `closed` says whether these are all the names there are; where it is not, any other name may be
    anything.
    """

    def __init__(self, shapes: Mapping[str, StaticType], *, closed: bool) -> None:
        self.shapes = shapes
        self.closed = closed

    def find(self, name: str) -> StaticType | None:
        """Return the shape of a name, None where there is no such name."""
        return self.shapes.get(name) or (None if self.closed else UNKNOWN)


def either_shape(then: StaticType, otherwise: StaticType) -> StaticType:
    """Return what a condition gives, one or the other."""
    if "nil" in (then.kind, otherwise.kind):
        return otherwise if then.kind == "nil" else then
    if not then.fits(otherwise):
        return UNKNOWN
    if then.kind == otherwise.kind == "list":
        one, other = then.items(), otherwise.items()
        if not (one.fits(other) and other.fits(one)):
            return LIST
    return then


def member_shape(node: Member, base: StaticType, key: Code) -> StaticType:
    """Return what `base[key]` gives. Raises a `name` fault where there is no such thing."""
    if base.is_unknown:
        return UNKNOWN
    name = (
        key.literal if isinstance(node.key, Literal) and isinstance(node.key.value, str) else None
    )
    if isinstance(name, str) and name in METHODS_BY_KIND.get(base.kind, {}):
        return StaticType("func", form=base.kind, name=name)
    if base.kind == "map":
        if not key.shape.is_unknown and not key.shape.fits(base.keys()):
            raise name_error(f"cannot use {key.shape} to get an element from {base}", node.position)
        return base.items()
    if base.kind == "list":
        if not key.shape.maybe("int"):
            raise name_error(
                f"elements are counted by whole numbers, not {key.shape}", node.position
            )
        return base.items()
    if name is not None:
        raise name_error(f"{base} has no field {name}", node.position)
    raise name_error(f"{base}[{key.shape}] is undefined", node.position)


def speaks_of_index(node: SyntaxNode) -> bool:
    """Return whether `#index` is anywhere in it."""
    pending: list[SyntaxNode] = [node]
    while pending:
        part = pending.pop()
        if isinstance(part, Pointer) and part.name == "index":
            return True
        pending.extend(child for child in part.children() if child is not None)
    return False
