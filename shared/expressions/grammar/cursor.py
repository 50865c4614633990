"""Walking along tokens while nodes grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared.expressions.errors import ExpressionError, limit_error, syntax_error
from shared.expressions.grammar.lexer import Lexeme, TokenKind
from shared.expressions.grammar.nodes import SyntaxNode
from shared.expressions.limits import MAX_TREE_DEPTH, MAX_TREE_NODES

_AnyNode = TypeVar("_AnyNode", bound=SyntaxNode)


class TokenCursor:
    """A place among the tokens of an expression, and the count of the nodes made of them so far."""

    def __init__(self, tokens: list[Lexeme]) -> None:
        self._tokens = tokens
        self._next = 0
        self._nodes = 0

    # The tokens

    @property
    def _token(self) -> Lexeme:
        return self._tokens[self._next]

    def _advance(self) -> Lexeme:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _sees(self, kind: TokenKind, value: str) -> bool:
        return self._tokens[self._next].is_(kind, value)

    def _takes(self, kind: TokenKind, value: str) -> bool:
        if self._sees(kind, value):
            self._next += 1
            return True
        return False

    def _expect(self, kind: TokenKind, value: str) -> Lexeme:
        if not self._sees(kind, value):
            raise self._unexpected()
        return self._advance()

    def _expect_name(self) -> Lexeme:
        if self._token.kind != "name":
            raise self._unexpected()
        return self._advance()

    def _unexpected(self) -> ExpressionError:
        return syntax_error(f"unexpected {self._token}", self._token.position)

    # The nodes

    def _grown(self, node: _AnyNode) -> _AnyNode:
        """Count a new node against the limits."""
        self._nodes += 1
        if self._nodes > MAX_TREE_NODES:
            raise limit_error(
                f"the expression has more than {MAX_TREE_NODES:,} parts", node.position
            )
        below = [child for child in node.children() if child is not None]
        node.depth = max((child.depth for child in below), default=0) + 1
        node.size = sum(child.size for child in below) + 1
        if node.depth > MAX_TREE_DEPTH:
            raise limit_error(
                f"the expression is deeper than {MAX_TREE_DEPTH} levels", node.position
            )
        return node

    def _list(self, closing: str, read: Callable[[], _AnyNode]) -> tuple[_AnyNode, ...]:
        """Return what `read` reads, between commas up to the closing bracket; a last comma may stand."""
        items: list[_AnyNode] = []
        while not self._takes("bracket", closing):
            if items:
                self._expect("operator", ",")
                if self._takes("bracket", closing):
                    break
            items.append(read())
        return tuple(items)
