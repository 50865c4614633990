"""`haulier audit`: finds what is stuck, left over or done twice."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import click
import msgspec

from haulier.cli.forms import Form, Layout, prints, show_rows
from haulier.cli.general import EXIT_FAULT, EXIT_MISUSE
from haulier.cli.output import complain, say_on_stderr, show_json_value
from shared.config import ConfigurationError, Override, load
from shared.config.flags import configuration_options
from shared.durations import duration_seconds
from shared.errors import ApplicationError
from shared.telemetry import configure_logging

_FINDINGS: Final[Layout[Any]] = Layout(
    headings=("WHAT", "WHERE", "DETAIL"),
    row=lambda found, _: (found.what, found.subject, found.detail),
    name=lambda found: found.subject,
    empty="clean",
)


@click.command("audit", params=configuration_options())
@click.option(
    "--patience",
    default="90s",
    show_default=True,
    metavar="DURATION",
    help="Report only problems older than this.",
)
@prints()
def audit_command(form: Form, config: str | None, set: tuple[Override, ...], patience: str) -> int:
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
        return EXIT_MISUSE
    if form.as_json:
        show_json_value(msgspec.to_builtins(report))
    else:
        show_rows(form, _FINDINGS, report.findings)
    for what in report.not_seen:
        say_on_stderr(f"not checked: {what}")
    return EXIT_FAULT if report.findings else 0
