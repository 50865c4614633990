"""The `haulier` command."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from haulier import __version__
from haulier.cli.calls import EXIT_INTERRUPTED, FAULT
from haulier.cli.cluster import CLUSTER_COMMANDS
from haulier.cli.import_path import RoomCommands
from haulier.cli.jobs import JOBS_COMMANDS
from haulier.cli.logs import LOGS_COMMANDS
from haulier.cli.output import complain
from haulier.errors import HaulierError

BROKEN_PIPE = 141
"""What a shell says of a program that SIGPIPE ended."""


_ROOM_COMMANDS = {
    "audit": "haulier.cli.audit:audit_command",
    "config": "haulier.cli.settings:config_command",
    "run": "haulier.cli.run:run_command",
    "validate": "haulier.cli.documents:validate",
}


@click.group(
    cls=RoomCommands,
    room_commands=_ROOM_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def cli() -> None:
    """Haulier is a workflow engine that runs each step of a job in its own container."""


@cli.command("version")
def version_command() -> None:
    """Print the version."""
    click.echo(f"haulier {__version__}")


for _command in (*JOBS_COMMANDS, *LOGS_COMMANDS, *CLUSTER_COMMANDS):
    cli.add_command(_command)


def run_cli(argv: Sequence[str] | None = None) -> None:
    """Run the command by `argv` (the process's own by default) and exit with its code.

    0: it was done. 1: it failed, as stderr says in a line. 2: it was asked for in a wrong way.
    """
    code = _main(argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        code = BROKEN_PIPE
    sys.exit(code)


def _main(argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever a terminal can't show must not stop us from showing the rest.
            stream.reconfigure(errors="replace")
    try:
        return int(cli.main(args=argv, prog_name="haulier", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HaulierError as error:
        complain(str(error))
        return FAULT
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED


def _drop_output() -> None:
    """Let what is still buffered for a reader that is gone go nowhere, without a word at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
