"""`python -m coordinator`: runs a coordinator."""

from __future__ import annotations

from shared.startup import ProcessMain, process_command


def _find() -> ProcessMain:
    from coordinator.app import run_coordinator

    return run_coordinator


if __name__ == "__main__":
    process_command("coordinator", _find).main(prog_name="python -m coordinator")
