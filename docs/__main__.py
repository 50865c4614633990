"""Generates the reference pages (`make docs`); with `--check`, only checks whether they are current."""

from __future__ import annotations

import sys

from docs.pages import FOLDER, PAGES


def main() -> int:
    """Write every page, or check them; return the exit code."""
    checking = "--check" in sys.argv[1:]
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = 0
    for name, made in PAGES.items():
        file, text = FOLDER / name, made()
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"docs/reference/{name} {'is not current' if checking else 'written'}")  # noqa: T201 a command
        if not checking:
            file.write_text(text, encoding="utf-8")
    return 1 if checking and stale else 0


if __name__ == "__main__":
    sys.exit(main())
