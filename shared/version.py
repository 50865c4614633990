"""The version of Haulier."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version, like `1.4.0`."""
    return metadata.version("haulier")
