"""The pages of the documentation, and the jobs that they show."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = DOCS / "reference"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for page in DOCS.rglob("*.md") if not page.is_relative_to(GENERATED)),
    ]
)
FENCE = re.compile(r"^\s*```(\w*)\n(.*?)^\s*```", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    """The page."""
    return page.read_text()


def name_of(page: Path) -> str:
    """Its path in the repository."""
    return str(page.relative_to(ROOT))


class Command(msgspec.Struct, frozen=True):
    """A command that a page shows, and what it shows after it."""

    line: str
    shown: str = ""


def commands_of(page: Path) -> Iterator[Command]:
    """Every line of a page's blocks for the shell."""
    for language, body in FENCE.findall(text_of(page)):
        text = textwrap.dedent(body).replace("\\\n", "")
        if language == "shell":
            yield from (Command(line) for line in text.splitlines() if line)
        elif language == "console":
            for each in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, _, shown = each.partition("\n")
                yield Command(line, shown)


def whole_jobs() -> Iterator[tuple[Path, str]]:
    """Every job that a page shows whole."""
    for page in PAGES:
        for language, body in FENCE.findall(text_of(page)):
            if language == "yaml" and body.startswith("name:") and "\ntasks:" in body:
                yield page, body
