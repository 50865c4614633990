"""From text to tokens."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from shared.expressions.errors import syntax_error
from shared.expressions.grammar.quoting import read_quoted, read_raw

TokenKind = Literal["operator", "bracket", "number", "text", "name", "end"]


class Lexeme(msgspec.Struct, frozen=True):
    """One word of an expression: `value` is its text, or for a quoted text what it stands for."""

    kind: TokenKind
    value: str
    position: int

    def is_(self, kind: TokenKind, value: str) -> bool:
        """Return whether it is exactly this word."""
        return self.kind == kind and self.value == value

    def __str__(self) -> str:
        return "end of expression" if self.kind == "end" else f"{self.kind} {self.value!r}"


_WORDS = frozenset(
    ["not", "in", "or", "and", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"]
)
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SKIPPED = re.compile(rf"(?:[{_SPACE}]+|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_BARE = r"[0-9][0-9_]*(?:\.(?!\.)[0-9_]*)?(?:[eE][+-]?[0-9_]*)?"


def _based(letter: str, digits: str) -> str:
    """Return the pattern of a number with a prefix, and of what may wrongly follow it."""
    return rf"0[{letter}][{digits}_]*(?:\.(?!\.)[{digits}_]*)?(?:[eE][+-]?[{digits}_]*)?"


_NUMBER = re.compile(
    rf"\.?(?:{_based('xX', '0-9a-fA-F')}|{_based('oO', '0-7')}|{_based('bB', '01')}|{_BARE})"
)
_SIGN = re.compile(r"[(){}\[\]]|[,;%+\-^/]|[&!=*<>][&=*]?|\|\|?|::?|\?[.?]?|\.\.?|#")


def is_word_character(character: str) -> bool:
    """Return whether it may stand in a name: a letter of any script, a decimal digit, `_` or `$`."""
    return character.isalpha() or character.isdecimal() or character in "_$"


def tokenize(text: str) -> list[Lexeme]:
    """Return the tokens of `text`, the last one of kind `end`. Raises a `syntax` fault."""
    tokens: list[Lexeme] = []
    position = _skip(text, 0)
    while position < len(text):
        token, position = _next(text, position, after=tokens[-1] if tokens else None)
        tokens.append(token)
        position = _skip(text, position)
    tokens.append(Lexeme("end", "", len(text)))
    return tokens


def _skip(text: str, position: int) -> int:
    match = _SKIPPED.match(text, position)
    return match.end() if match else position


def _next(text: str, position: int, after: Lexeme | None) -> tuple[Lexeme, int]:
    character = text[position]
    if _names_pointer(after, position) and is_word_character(character):
        return _word(text, position, pointer=True)
    if character in "'\"":
        value, end = read_quoted(text, position)
        return Lexeme("text", value, position), end
    if character == "`":
        value, end = read_raw(text, position)
        return Lexeme("text", value, position), end
    if character in "0123456789" or (
        character == "." and text[position + 1 : position + 2] in _DIGITS
    ):
        return _number(text, position)
    if is_word_character(character):
        return _word(text, position, pointer=False)
    return _sign(text, position)


_DIGITS = tuple("0123456789")


def _number(text: str, position: int) -> tuple[Lexeme, int]:
    match = _NUMBER.match(text, position)
    assert match is not None
    end = match.end()
    if end < len(text) and is_word_character(text[end]):
        raise syntax_error(f"bad number {text[position : end + 1]!r}", end)
    return Lexeme("number", match.group(), position), end


def _names_pointer(after: Lexeme | None, position: int) -> bool:
    """Return whether a `#` stands right before, so that a word here is its name, whatever the word."""
    return after is not None and after.is_("operator", "#") and after.position == position - 1


def _word(text: str, position: int, *, pointer: bool) -> tuple[Lexeme, int]:
    end = position
    while end < len(text) and is_word_character(text[end]):
        end += 1
    word = text[position:end]
    kind: TokenKind = "operator" if word in _WORDS and not pointer else "name"
    return Lexeme(kind, word, position), end


def _sign(text: str, position: int) -> tuple[Lexeme, int]:
    match = _SIGN.match(text, position)
    if match is None:
        raise syntax_error(f"unexpected character {text[position]!r}", position)
    sign = match.group()
    if sign == "/" and text.startswith("/*", position):
        raise syntax_error("the comment is not closed", position)
    kind: TokenKind = "bracket" if sign in "()[]{}" else "operator"
    return Lexeme(kind, sign, position), match.end()
