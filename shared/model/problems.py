"""The problems of a user's document, each with its position."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from shared.errors import ApplicationError

Path = tuple[str | int, ...]
"""Where in a document: names of fields and keys, and indices of lists."""

_PLAIN_KEY: Final = re.compile(r"[\w-]{1,64}")
_LONGEST_KEY: Final = 64


def path_text(path: Path) -> str:
    """Return a path as people read it: `tasks[2].env.PORT`, and `["…"]` for keys of odd characters."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{quoted_text(step)}]")
    return "".join(parts)


def quoted_text(text: str) -> str:
    """Return a text of the user's for a message: in quotes, escaped, cut where it is long."""
    shown = text if len(text) <= _LONGEST_KEY else text[:_LONGEST_KEY] + "…"
    safe = shown.encode("utf-8", "backslashreplace").decode()
    return json.dumps(safe, ensure_ascii=False)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem: where it is (path; line and column from 1, if known) and what is wrong."""

    path: str
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidDocument(ApplicationError):
    """An invalid document; `problems` lists everything that is wrong, at least one thing."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)


_LONGEST: Final = 64  # comparing is quadratic, and nobody mistypes a page


def suggestion(word: str, known: Iterable[str]) -> str:
    """`, did you mean "…"?` for the nearest known word, or nothing where none is near."""
    if len(word) > _LONGEST:
        return ""
    spellings = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), spellings, n=1, cutoff=0.7)
    return f', did you mean "{spellings[near[0]]}"?' if near else ""
