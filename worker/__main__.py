"""`python -m worker`: runs a worker."""

from __future__ import annotations

import sys

from shared.startup import ProcessMain, start


def _find() -> ProcessMain:
    from worker.app import run_worker

    return run_worker


if __name__ == "__main__":
    sys.exit(start("worker", sys.argv[1:], "python -m worker", _find))
