"""Texts as Go's strings: sequences of bytes that mostly, but not always, are UTF-8."""

from __future__ import annotations

import re

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FOREIGN_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_REPLACEMENT = "\ufffd"


def is_broken(text: str) -> bool:
    """Return whether it holds bytes that are no UTF-8."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def adopted(text: str) -> str:
    """Return a text from outside, what no UTF-8 can say replaced."""
    return text if text.isascii() else _SURROGATE.sub(_REPLACEMENT, text)


def presented(text: str) -> str:
    """Return a text for outside, each byte that is no UTF-8 replaced."""
    return adopted(text)


def to_bytes(text: str) -> bytes:
    """Return the bytes of a text."""
    if text.isascii():
        return text.encode("ascii")
    return _FOREIGN_SURROGATE.sub(_REPLACEMENT, text).encode("utf-8", "surrogateescape")


def from_bytes(data: bytes) -> str:
    """Return the text of bytes."""
    return data.decode("utf-8", "surrogateescape")


def byte_length(text: str) -> int:
    """Return how many bytes it has."""
    return len(text) if text.isascii() else len(to_bytes(text))


def concatenated(left: str, right: str) -> str:
    """Return one text after the other; halves of a cut character grow together."""
    text = left + right
    return from_bytes(to_bytes(text)) if is_broken(text) else text


def byte_slice(text: str, start: int, stop: int) -> str:
    """Return the bytes from `start` up to `stop`, both within the text."""
    if text.isascii():
        return text[start:stop]
    return from_bytes(to_bytes(text)[start:stop])


def trimmed(text: str) -> str:
    """Without the white space around it."""
    return text.strip(_SPACE)


def upper(text: str) -> str:
    """Return each letter on its own in upper case, where that is one letter (`ß` stays)."""
    return text.upper() if text.isascii() else "".join(_upper(letter) for letter in text)


def _upper(letter: str) -> str:
    for changed in (letter.upper(), letter.title()):
        if len(changed) == 1:
            return _REPLACEMENT if "\ud800" <= changed <= "\udfff" else changed
    return letter


def lower(text: str) -> str:
    """Return each letter on its own in lower case."""
    return text.lower() if text.isascii() else "".join(_lower(letter) for letter in text)


def _lower(letter: str) -> str:
    changed = letter.lower()[0]
    return _REPLACEMENT if "\ud800" <= changed <= "\udfff" else changed


def _bytes_if_broken(text: str, part: str) -> tuple[str, str] | tuple[bytes, bytes]:
    """Both as they are, or as bytes where one of them cuts a character that the other may have whole."""
    if is_broken(text) or is_broken(part):
        return to_bytes(text), to_bytes(part)
    return text, part


def contains_text(text: str, part: str) -> bool:
    """Return whether `part` is somewhere in the text."""
    whole, piece = _bytes_if_broken(text, part)
    return piece in whole  # type: ignore[operator] # both are of one type


def starts(text: str, part: str) -> bool:
    """Return whether the text begins with `part`."""
    whole, piece = _bytes_if_broken(text, part)
    return whole.startswith(piece)  # type: ignore[arg-type] # both are of one type


def ends(text: str, part: str) -> bool:
    """Return whether the text ends with `part`."""
    whole, piece = _bytes_if_broken(text, part)
    return whole.endswith(piece)  # type: ignore[arg-type] # both are of one type


def without_prefix(text: str, prefix: str) -> str:
    """Return the text without `prefix` before it, where it has it."""
    if not is_broken(prefix):
        return text.removeprefix(prefix)
    return from_bytes(to_bytes(text).removeprefix(to_bytes(prefix)))


def without_suffix(text: str, suffix: str) -> str:
    """Return the text without `suffix` after it, where it has it."""
    if not is_broken(suffix):
        return text.removesuffix(suffix)
    return from_bytes(to_bytes(text).removesuffix(to_bytes(suffix)))


def index_of(text: str, part: str) -> int:
    """Return the byte where `part` first begins, or -1."""
    return to_bytes(text).find(to_bytes(part))


def last_index_of(text: str, part: str) -> int:
    """Return the byte where `part` last begins, or -1."""
    return to_bytes(text).rfind(to_bytes(part))


def split(text: str, separator: str, limit: int = -1, *, keep: bool = False) -> list[str]:
    """Return the parts between separators, at most `limit` of them unless that is negative; with `keep`
    each part keeps the separator after it. An empty separator stands between all characters."""
    if separator == "":
        return _characters(text, limit)
    if is_broken(text) or is_broken(separator):
        pieces = to_bytes(text).split(to_bytes(separator), -1 if limit < 0 else limit - 1)
        parts = [from_bytes(piece) for piece in pieces]
    else:
        parts = text.split(separator, -1 if limit < 0 else limit - 1)
    if keep:
        parts[:-1] = [part + separator for part in parts[:-1]]
    return parts


def _characters(text: str, limit: int) -> list[str]:
    if limit < 0 or limit > len(text):
        return list(text)
    return [*text[: limit - 1], text[limit - 1 :]]


def replaced(text: str, old: str, new: str, limit: int) -> str:
    """`old` replaced by `new`, at most `limit` times unless that is negative."""
    limit = max(limit, -1)
    if is_broken(text) or is_broken(old) or is_broken(new):
        return from_bytes(to_bytes(text).replace(to_bytes(old), to_bytes(new), limit))
    return text.replace(old, new, limit)
