"""The version of Haulier."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Return the installed version, like `1.4.0`."""
    return metadata.version("haulier")
