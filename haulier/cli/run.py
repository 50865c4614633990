"""`haulier run`: starts a process. Its flags are parsed in `shared.config.flags`."""

from __future__ import annotations

import click

from shared.startup import ProcessMain, process_command


@click.group("run")
def run_command() -> None:
    """Start a coordinator, a worker, or both in one process."""


def _standalone() -> ProcessMain:
    from haulier.standalone import run_standalone as standalone

    return standalone


def _coordinator() -> ProcessMain:
    from coordinator.app import run_coordinator as coordinator

    return coordinator


def _worker() -> ProcessMain:
    from worker.app import run_worker as worker

    return worker


run_command.add_command(process_command("standalone", _standalone))
run_command.add_command(process_command("coordinator", _coordinator))
run_command.add_command(process_command("worker", _worker))
