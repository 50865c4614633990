"""`haulier audit`: finds what is stuck, left over or done twice."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import click
import msgspec

from haulier.cli.calls import FAULT, MISUSE
from haulier.cli.output import complain, say_on_stderr, show_table
from haulier.cli.settings import override
from shared.config import ConfigurationError, load
from shared.durations import duration_seconds
from shared.errors import HaulierError


@click.command("audit")
@click.option("--config", "file", metavar="FILE", help="Configuration file to read.")
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a setting; may be repeated.",
)
@click.option(
    "--patience",
    default="90s",
    show_default=True,
    metavar="DURATION",
    help="Report only problems older than this.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit_command(
    file: str | None, assignments: tuple[str, ...], patience: str, as_json: bool
) -> int:
    """Find what is stuck, left over or done twice; exit with 0 if there is nothing.

    It reads the datastore, the broker's queues and the engine of this host by the settings of a
    coordinator or worker, and changes nothing. 1: there is something. 2: it could not look.
    """
    from haulier.audit_sources import audit_sources as audited

    try:
        seconds = duration_seconds(patience)
        loaded = load([override(text) for text in assignments], file=file)
        report = asyncio.run(audited(loaded.config, seconds))
    except (ConfigurationError, HaulierError, ValueError) as error:
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


AUDIT_COMMANDS: Final = (audit_command,)
