"""`python -m worker`: runs a worker."""

from __future__ import annotations

from shared.startup import ProcessMain, process_command


def _find() -> ProcessMain:
    from worker.app import run_worker

    return run_worker


if __name__ == "__main__":
    process_command("worker", _find).main(prog_name="python -m worker")
