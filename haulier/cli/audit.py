"""`haulier audit`: finds what is stuck, left over or done twice."""

from __future__ import annotations

import asyncio
import json

import click
import msgspec

from haulier.cli.calls import FAULT, MISUSE
from haulier.cli.output import complain, say_on_stderr, show_table
from shared.config import ConfigurationError, Override, load
from shared.config.flags import general_options
from shared.durations import duration_seconds
from shared.errors import ApplicationError
from shared.telemetry import configure_logging


@click.command("audit", params=general_options())
@click.option(
    "--patience",
    default="90s",
    show_default=True,
    metavar="DURATION",
    help="Report only problems older than this.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit_command(
    config: str | None, set: tuple[Override, ...], patience: str, as_json: bool
) -> int:
    """Find what is stuck, left over or done twice; exit with 0 if there is nothing.

    It reads the datastore, the broker's queues and the engine of this host by the settings of a
    coordinator or worker, and changes nothing. 1: there is something. 2: it could not look.
    """
    from haulier.audit_sources import audit_sources as audited  # loads every room

    try:
        seconds = duration_seconds(patience)
        loaded = load(set, file=config)
        configure_logging("warn", loaded.config.logging.format)
        report = asyncio.run(audited(loaded.config, seconds))
    except (ConfigurationError, ApplicationError, ValueError) as error:
        complain(str(error))
        return MISUSE
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(report), indent=2, ensure_ascii=False))
    else:
        rows = [(found.what, found.subject, found.detail) for found in report.findings]
        show_table(("WHAT", "WHERE", "DETAIL"), rows, "clean")
    for what in report.not_seen:
        say_on_stderr(f"not checked: {what}")
    return FAULT if report.findings else 0
