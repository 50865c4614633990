"""The reference pages, each with the function that generates it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from docs import commands, functions, job_fields, rest_api
from shared.config.reference import reference
from tests.mechanisms import table

FOLDER: Final = Path(__file__).parent / "reference"

PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": commands.page,
    "configuration.md": lambda: reference() + "\n",
    "expressions.md": functions.page,
    "job-fields.md": job_fields.page,
    "mechanisms.md": table.page,
    "rest-api.md": rest_api.page,
}
"""By file name."""
