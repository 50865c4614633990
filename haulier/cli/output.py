"""The output of the commands: tables and fields for people, lines and JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STATE_STYLES = {
    "COMPLETED": "green",
    "UP": "green",
    "FAILED": "red",
    "DOWN": "red",
    "OFFLINE": "red",
    "CANCELLED": "yellow",
    "DRAINING": "yellow",
    "RUNNING": "cyan",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def complain(message: str) -> None:
    """Say on stderr what is wrong, without a traceback."""
    for line in message.splitlines() or [""]:
        click.echo(f"haulier: {plain_text(line)}", err=True)


def say_on_stderr(message: str) -> None:
    """Say something on stderr that is not part of the output."""
    click.echo(plain_text(message), err=True)


def plain_text(text: str) -> str:
    """Return a text of others' as one line that can't play tricks on a terminal."""
    return _CONTROL.sub(" ", text).strip()


def show_json(answer: bytes) -> None:
    """Print the server's answer, laid out."""
    click.echo(json.dumps(json.loads(answer), indent=2, ensure_ascii=False))


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Print rows: as a table on a terminal, else as aligned lines under a line of headings."""
    if not rows:
        say_on_stderr(empty)
        return
    cells = [[plain_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(headings, cells)
        return
    lines = [list(headings), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == "ID")
    for row in rows:
        table.add_row(*(Text(cell, style=_STATE_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


def show_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, those without a value left out. A value may have many lines."""
    present = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        lines = [_CONTROL.sub(" ", line) for line in value.splitlines()] or [""]
        click.echo(f"{name.ljust(width)}  {lines[0]}")
        for line in lines[1:]:
            click.echo(" " * (width + 2) + line)


def moment(time: datetime | None) -> str:
    """Return a time as people here read it, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def percent(number: float) -> str:
    """Return a percentage."""
    return f"{number:.0f}%"
