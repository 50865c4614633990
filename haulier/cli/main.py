"""The group of all commands, and what becomes of their errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click
from click.exceptions import NoArgsIsHelpError

from haulier.cli.forms import json_option
from haulier.cli.general import (
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_MISUSE,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    general_options,
    server_options,
)
from haulier.cli.import_path import LazyCommands
from haulier.cli.output import complain, say_on_stderr, show_json_value
from haulier.errors import ApiError, HaulierError, MisuseError, UnreachableError

BROKEN_PIPE: Final = 141
"""What a shell says of a program that SIGPIPE ended."""

_COMMANDS: Final = {
    "cancel": "haulier.cli.jobs:cancel_command",
    "delete": "haulier.cli.jobs:delete",
    "drain": "haulier.cli.cluster:drain",
    "health": "haulier.cli.cluster:health_command",
    "job": "haulier.cli.jobs:job",
    "jobs": "haulier.cli.jobs:jobs",
    "logs": "haulier.cli.logs:logs",
    "nodes": "haulier.cli.cluster:nodes",
    "queues": "haulier.cli.cluster:queues",
    "restart": "haulier.cli.jobs:restart_command",
    "resume": "haulier.cli.cluster:resume",
    "submit": "haulier.cli.submit:submit",
}
_MORE_COMMANDS: Final = {
    "completion": "haulier.cli.doctor:completion",
    "doctor": "haulier.cli.doctor:doctor",
    "open": "haulier.cli.questions:open_command",
    "rerun": "haulier.cli.questions:rerun",
    "schedule": "haulier.cli.schedules:schedule",
    "token": "haulier.cli.people:token_command",
    "user": "haulier.cli.people:user",
    "watch": "haulier.cli.watch:watch",
    "wait": "haulier.cli.questions:wait",
    "why": "haulier.cli.questions:why",
}
_ROOM_COMMANDS: Final = {
    "audit": "haulier.cli.audit:audit_command",
    "audit-log": "haulier.cli.audit_log:audit_log",
    "config": "haulier.cli.settings:config_command",
    "run": "haulier.cli.run:run_command",
    "validate": "haulier.cli.documents:validate",
}
_SECTIONS: Final = {
    "Jobs": "submit watch wait jobs job logs why cancel restart rerun delete open validate",
    "Schedules": "schedule",
    "Cluster": "nodes queues drain resume health doctor",
    "Access": "user token audit-log",
    "Server": "run config audit",
    "This command": "completion version",
}


@click.group(
    cls=LazyCommands,
    places=_COMMANDS | _MORE_COMMANDS,
    room_places=_ROOM_COMMANDS,
    sections=_SECTIONS,
    params=[*server_options(), *general_options()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 it failed or the job did, 2 misuse, 3 the server can't be "
    "reached, 4 refused (no or wrong credentials, or not allowed), 130 interrupted.",
)
def cli() -> None:
    """Haulier is a workflow engine that runs each step of a job in its own container."""


@cli.command("version")
@json_option
def version_command(as_json: bool) -> None:
    """Print the version."""
    from haulier import __version__

    if as_json:
        show_json_value({"version": __version__})
    else:
        click.echo(f"haulier {__version__}")


def exit_code(argv: Sequence[str] | None = None) -> int:
    """Run the command by `argv`; return what to exit with. What is wrong is said on stderr."""
    code = _done(argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    return code


def _done(argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever a terminal can't show must not stop us from showing the rest.
            stream.reconfigure(errors="replace")
    try:
        return int(_answer(argv) or 0)
    except click.ClickException as error:
        _tell_misuse(error)
        return error.exit_code
    except HaulierError as error:
        complain(str(error))
        return exit_code_of(error)
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return EXIT_INTERRUPTED


def _tell_misuse(error: click.ClickException) -> None:
    if not isinstance(error, click.UsageError) or isinstance(error, NoArgsIsHelpError):
        error.show()
        return
    if error.ctx is not None:
        say_on_stderr(error.ctx.get_usage())
        say_on_stderr(f"Try '{error.ctx.command_path} --help' for help.")
        click.echo(err=True)
    say_on_stderr(f"Error: {error.format_message()}")


def _answer(argv: Sequence[str] | None) -> Any:
    return cli.main(args=argv, prog_name="haulier", standalone_mode=False)


def exit_code_of(error: HaulierError) -> int:
    """Return the exit code that an error stands for."""
    if isinstance(error, UnreachableError):
        return EXIT_UNREACHABLE
    if isinstance(error, MisuseError):
        return EXIT_MISUSE
    if isinstance(error, ApiError) and error.status in (401, 403):
        return EXIT_REFUSED
    return EXIT_FAULT


def _drop_output() -> None:
    """Let what is still buffered for a reader that is gone go nowhere, without a word at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
