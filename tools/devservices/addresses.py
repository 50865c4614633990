"""Addresses of services: given by the environment, or remembered where we started them."""

from __future__ import annotations

import os
from pathlib import Path

FILE = "addresses"


def given(*names: str) -> dict[str, str]:
    """Those of the environment variables that are set and not empty."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def remember(folder: Path, values: dict[str, str]) -> None:
    """Keep a service's addresses beside its data."""
    (folder / FILE).write_text("".join(f"{name}={value}\n" for name, value in values.items()))


def recall(folder: Path) -> dict[str, str]:
    """The addresses kept there; empty where there are none."""
    try:
        lines = (folder / FILE).read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines)
