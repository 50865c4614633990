"""Quoted texts and what their backslashes mean."""

from __future__ import annotations

import re

from shared.expressions.errors import syntax_error

_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_PLAIN = re.compile(r"[^\\'\"\n]+")
_CODE = re.compile(
    r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|U([0-9a-fA-F]{8})|([0-3][0-7]{2})"
)
_LAST_CHARACTER = 0x10FFFF


def read_quoted(text: str, start: int) -> tuple[str, int]:
    """Return the value of the text quoted by the `'` or `"` at `start`, and where it ends.

    A carriage return counts as a line feed. Raises a `syntax` fault.
    """
    quote = text[start]
    parts: list[str] = []
    position = start + 1
    while position < len(text):
        character = text[position]
        if character == quote:
            value = "".join(parts)
            return value, position + 1
        if character == "\n":
            break
        part, position = _piece(text, position, quote)
        parts.append(part)
    raise syntax_error("the text is not closed", start)


def _piece(text: str, position: int, quote: str) -> tuple[str, int]:
    if text[position] == "\\":
        return _escape(text, position, quote)
    match = _PLAIN.match(text, position)
    if match is None:
        return text[position], position + 1
    return match.group().replace("\r", "\n"), match.end()


def _escape(text: str, position: int, quote: str) -> tuple[str, int]:
    letter = text[position + 1 : position + 2]
    if letter in _SIMPLE and letter not in "'\"":
        return _SIMPLE[letter], position + 2
    if letter == quote:
        return quote, position + 2
    match = _CODE.match(text, position + 1)
    if match is None:
        raise syntax_error(f"unknown escape \\{letter}", position)
    octal = match.group(5)
    digits = next(group for group in match.groups() if group is not None)
    code = int(digits, 8 if octal is not None else 16)
    if code > _LAST_CHARACTER:
        raise syntax_error("the escape is beyond the last character", position)
    surrogate = 0xD800 <= code <= 0xDFFF
    return "\ufffd" if surrogate else chr(code), match.end()


def read_raw(text: str, start: int) -> tuple[str, int]:
    """Return the text between backticks at `start`, a doubled backtick standing for one, and its end."""
    position = start + 1
    while True:
        position = text.find("`", position)
        if position < 0:
            raise syntax_error("the text is not closed", start)
        if not text.startswith("``", position):
            value = text[start + 1 : position].replace("``", "`")
            return value, position + 1
        position += 2
