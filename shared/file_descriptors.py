"""How many files and connections this process may have open, and those that it starts."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

FOUND_LIMIT: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""The soft limit that this process was started with. Tasks get this one: there are programs that close, or make a table
of, as many as they may open."""


def raise_descriptor_limit() -> None:
    """Let this process open as many files and connections as the machine's administrator allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(
            ValueError, OSError
        ):  # macOS names a hard limit that it does not give
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """Return how many it may have open now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
