"""The meaning of unquoted scalars (YAML 1.1, as Go's decoders read them too)."""

import math
import re
from typing import Final

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "yes", "on", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "n"})
_INTEGER: Final = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST: Final = 100
_SHOWN: Final = 64
"""Characters of a number that are shown in a message."""
_BASES: Final = {"0b": 2, "0o": 8, "0x": 16}


def is_null(text: str) -> bool:
    """Return whether a bare scalar means nothing at all."""
    return text in _NULLS


def boolean(text: str) -> bool | None:
    """Return the boolean that a bare scalar spells in lower, upper or title case, or None."""
    if text not in (text.lower(), text.upper(), text.title()):
        return None
    word = text.lower()
    if word in _TRUE:
        return True
    return False if word in _FALSE else None


def number(text: str) -> int | float | None:
    """Return the number that a bare scalar spells, or None; never infinite, never NaN."""
    if len(text) > _LONGEST:
        return None
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        value = float(text.replace("_", ""))
        return value if math.isfinite(value) else None
    return None


def kind_of_bare(text: str) -> str:
    """Return what a bare scalar is, in words for a message."""
    if is_null(text):
        return "nothing"
    if boolean(text) is not None:
        return f"the boolean {text}"
    if number(text) is not None or _INFINITE.fullmatch(text):
        return f"the number {text}"
    return f"the number {_short(text)}" if is_beyond(text) else "text"


def is_beyond(text: str) -> bool:
    """Return whether a bare scalar spells a number that is too long or too large to be had as one."""
    if number(text) is not None:
        return False
    whole = _INTEGER.fullmatch(text)
    return len(text) > _LONGEST if whole else _FLOAT.fullmatch(text) is not None


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _integer(text: str) -> int | None:
    digits = text.lstrip("+-").replace("_", "")
    base = _BASES.get(digits[:2], 8 if digits.startswith("0") and len(digits) > 1 else 10)
    try:
        value = int(digits[2:] if digits[:2] in _BASES else digits, base)
    except ValueError:  # underscores and nothing else
        return None
    return -value if text.startswith("-") else value
