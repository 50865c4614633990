"""`haulier run`: starts a process. Its flags are parsed in `shared.config.flags`."""

from __future__ import annotations

import click

from shared.config.flags import ProcessRole
from shared.startup import ProcessMain, start


@click.group("run")
def run_command() -> None:
    """Start a coordinator, a worker, or both in one process."""


_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}


def _process(role: ProcessRole, summary: str) -> click.Command:
    @run_command.command(
        role, context_settings=_PASSED_ON, short_help=summary, add_help_option=False
    )
    @click.argument("flags", nargs=-1, type=click.UNPROCESSED)
    def command(flags: tuple[str, ...]) -> int:
        return start(role, flags, f"haulier run {role}", _FIND[role])

    return command


def _standalone() -> ProcessMain:
    from haulier.standalone import run_standalone as standalone

    return standalone


def _coordinator() -> ProcessMain:
    from coordinator.app import run_coordinator as coordinator

    return coordinator


def _worker() -> ProcessMain:
    from worker.app import run_worker as worker

    return worker


_FIND = {"standalone": _standalone, "coordinator": _coordinator, "worker": _worker}

_process("standalone", "Run a coordinator and a worker in one process.")
_process("coordinator", "Run a coordinator: the REST API and the engine.")
_process("worker", "Run a worker: it takes tasks from queues and runs them.")

RUN_COMMANDS = (run_command,)
