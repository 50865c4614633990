"""Clocks of single processes that are wrong, by libfaketime."""

from __future__ import annotations

from pathlib import Path

from devservices import packages
from devservices.processes import ServiceError

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
"""Where Debian puts it; the monotonic clock is left alone, as it is in a machine whose clock is set."""


def can_set_clocks() -> bool:
    """Whether libfaketime can be had on this machine."""
    try:
        packages.ensure_file(LIBRARY, "faketime")
    except ServiceError:
        return False
    return True


def clock_that_is(off: str) -> dict[str, str]:
    """Return the environment of a process whose clock is `off` by so many seconds, as `+3600`."""
    return {"LD_PRELOAD": LIBRARY, "FAKETIME": off, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def clock_of(file: Path | None) -> dict[str, str]:
    """Return the environment of a process whose clock is off by what stands in `file`, now; none without a file."""
    if file is None:
        return {}
    return {
        "LD_PRELOAD": LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
