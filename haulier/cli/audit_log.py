"""`haulier audit-log`: shows the audit log, and checks that it is whole."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from haulier.cli.calls import asks_server
from haulier.cli.forms import Form, Layout, prints, show_rows
from haulier.cli.general import EXIT_FAULT, EXIT_MISUSE
from haulier.cli.lists import Listing, lists, show_list
from haulier.cli.output import complain, show_json_value, shown_width
from haulier.cli.times import relative
from haulier.cli.tree import short
from haulier.client import Client
from haulier.results import AuditEntry
from shared.config import ConfigurationError, Override, load
from shared.config.flags import configuration_options
from shared.errors import ApplicationError
from shared.telemetry import configure_logging

_ID: Final = re.compile("[0-9a-f]{32}")


@click.group("audit-log")
def audit_log() -> None:
    """Show and check the audit log: who did what and when."""


def _entry_row(entry: AuditEntry, at: datetime) -> tuple[str, ...]:
    action = entry.action if entry.count == 1 else f"{entry.action} ×{entry.count}"
    status = str(entry.status or "?")
    shortens = shown_width() is not None and _ID.fullmatch(entry.target)
    target = short(entry.target) if shortens else entry.target
    return relative(entry.at, at), entry.username, action, target, status, entry.address


_ENTRIES: Final = Listing(
    path="/audit",
    kind=AuditEntry,
    noun="entry",
    headings=("WHEN", "USER", "ACTION", "TARGET", "STATUS", "ADDRESS"),
    row=_entry_row,
    name=lambda entry: entry.id,
    empty="no entries",
    flexible=("USER", "ACTION", "TARGET", "ADDRESS"),
    optional=("STATUS", "ADDRESS"),
    size=25,
    most=1000,
)


@audit_log.command("list")
@click.option("--user", metavar="NAME", help="Only what this user did.")
@click.option("--action", metavar="WORD", help="Only actions with this word, such as cancel.")
@click.option("--target", metavar="ID", help="Only what was done to this id or name.")
@click.option("--since", metavar="TIME", help="Only from this time on, or this long ago (2h).")
@click.option("--until", metavar="TIME", help="Only until this time, or this long ago.")
@lists(_ENTRIES)
@asks_server
def list_audit_log(client: Client, form: Form, **filters: str | None) -> int:
    """List who did what and when, newest first; for admins."""
    return show_list(client, form, _ENTRIES, **filters)


@audit_log.command("verify", params=configuration_options())
@prints()
def verify(form: Form, config: str | None, set: tuple[Override, ...]) -> int:
    """Check each chain of the audit log for changed and missing entries; exit with 0 if it is whole.

    It reads the datastore by the settings of a coordinator, and changes nothing. 1: something is wrong. 2: it could
    not look.
    """
    from haulier.audit_sources import audit_log_faults  # loads every room

    try:
        loaded = load(set, file=config)
        configure_logging("warn", loaded.config.logging.format)
        count, found = asyncio.run(audit_log_faults(loaded.config))
    except (ConfigurationError, ApplicationError) as error:
        complain(str(error))
        return EXIT_MISUSE
    if form.as_json:
        show_json_value({"entries": count, "faults": msgspec.to_builtins(found)})
    else:
        layout: Layout[Any] = Layout(
            headings=("CHAIN", "ENTRY", "PROBLEM"),
            row=lambda fault, _: (fault.chain, str(fault.number), fault.problem),
            name=lambda fault: fault.chain,
            empty=f"whole: {count} entries",
        )
        show_rows(form, layout, found)
    return EXIT_FAULT if found else 0
