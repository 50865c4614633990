"""The word that was probably meant."""

import difflib
from collections.abc import Iterable
from typing import Final

_LONGEST: Final = 64  # comparing is quadratic, and nobody mistypes a page


def suggestion(word: str, known: Iterable[str]) -> str:
    """`, did you mean "…"?` for the nearest known word, or nothing where none is near."""
    if len(word) > _LONGEST:
        return ""
    spellings = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), spellings, n=1, cutoff=0.7)
    return f', did you mean "{spellings[near[0]]}"?' if near else ""
