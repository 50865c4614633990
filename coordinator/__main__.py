"""`python -m coordinator`: a coordinator as a process of its own."""

from __future__ import annotations

import sys

from shared.startup import Run, start


def _find() -> Run:
    from coordinator.app import run

    return run


if __name__ == "__main__":
    sys.exit(start("coordinator", sys.argv[1:], "python -m coordinator", _find))
