"""What goes wrong with an expression, said so that its author can mend it."""

from __future__ import annotations

from typing import Literal

from shared.errors import ApplicationError

FaultKind = Literal["syntax", "name", "run", "limit"]

_WIDEST_LINE = 160
"""Characters of source shown on each side of the caret; longer lines are cut around it."""


class ExpressionError(ApplicationError):
    """An expression that cannot be read, does not make sense, or failed.

    `kind` says when it went wrong: `syntax` (not an expression at all), `name` (an unknown name, a
    wrong number or type of arguments, seen before anything ran), `run` (while it ran) or `limit` (it
    asked for more than an expression may have). `position` counts characters of `source` from zero.
    Messages speak of types and never hold values, since a value may be a secret.
    """

    def __init__(
        self, message: str, position: int | None = None, kind: FaultKind = "run", source: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.kind: FaultKind = kind
        self.source = source

    def at(self, position: int) -> ExpressionError:
        """Return itself, placed at `position` unless something nearer to the fault has placed it already."""
        if self.position is None:
            self.position = position
        return self

    def within(self, source: str) -> ExpressionError:
        """Return itself, knowing the text that `position` counts in."""
        if not self.source:
            self.source = source
        return self

    def in_braces(self) -> ExpressionError:
        """Return itself, saying how a template writes braces that are no expression, where these may be some."""
        if self.kind in ("syntax", "name"):
            self.message += '; for braces that are no expression write {{ "{{" }}'
        return self

    def render(self) -> str:
        """Return the message with line and column, the line it is about, and a caret below the fault."""
        if self.position is None or not self.source.strip():
            return self.message
        position = min(self.position, len(self.source))
        start = self.source.rfind("\n", 0, position) + 1
        end = self.source.find("\n", position)
        line = self.source[start : end if end >= 0 else None]
        column = position - start
        number = self.source.count("\n", 0, start) + 1
        cut = max(0, column - _WIDEST_LINE)
        shown = line[cut : column + _WIDEST_LINE].replace("\t", " ").rstrip("\r")
        place = f"{self.message} ({number}:{column + 1})"
        return f"{place}\n | {shown}\n | {'.' * (column - cut)}^"

    def __str__(self) -> str:
        return self.render()


def name_error(message: str, position: int) -> ExpressionError:
    """Return a fault seen before anything runs: a name, a type or a number of arguments."""
    return ExpressionError(message, position, "name")


def syntax_error(message: str, position: int) -> ExpressionError:
    """Return a text that is not an expression."""
    return ExpressionError(message, position, "syntax")


def limit_error(message: str, position: int | None = None) -> ExpressionError:
    """More asked for than an expression may have."""
    return ExpressionError(message, position, "limit")
