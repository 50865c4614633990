"""`python -m coordinator`: runs a coordinator."""

from __future__ import annotations

import sys

from shared.startup import ProcessMain, start


def _find() -> ProcessMain:
    from coordinator.app import run_coordinator

    return run_coordinator


if __name__ == "__main__":
    sys.exit(start("coordinator", sys.argv[1:], "python -m coordinator", _find))
