"""The output of the commands: tables, fields and sentences for people, ids and JSON for programs.

On a terminal a line is never wider than it, and a word is cut only where nothing else is left to
cut. In a pipe nothing is cut. What others wrote (names, errors) never reaches a terminal as control
characters.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, TextIO

import click

from haulier.cli.answers import decoded

_STYLES: Final = {
    "COMPLETED": "green",
    "UP": "green",
    "ACTIVE": "green",
    "FAILED": "red",
    "DOWN": "red",
    "OFFLINE": "red",
    "CANCELLED": "yellow",
    "DRAINING": "yellow",
    "PAUSED": "yellow",
    "RUNNING": "cyan",
}
_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+"
)
"""Control characters of both sets, and those that turn the direction of writing."""
_UNSAFE_IN_JSON: Final = re.compile(_CONTROL.pattern.removesuffix("+").replace("\x00-\x1f", ""))
_LEAST: Final = 6
"""Columns that are left of the widest cell however narrow the terminal is."""
_ROWS: Final = 5
"""Lines of a terminal that one line of an error takes at most."""
_WORD: Final = re.compile(r"\s*\S+")


def say(message: str = "") -> None:
    """Print a line. It may hold colours, which are left out where there is no terminal."""
    click.echo(message)


def say_fitting(message: str) -> None:
    """Print a sentence, on a terminal broken between words."""
    for line in wrapped(message, columns=shown_width()):
        say(line)


def complain(message: str) -> None:
    """Say on stderr what is wrong, without a traceback."""
    for line in message.splitlines() or [""]:
        say_on_stderr(f"haulier: {plain_text(line)}")


def say_on_stderr(message: str, indent: str = "") -> None:
    """Say something on stderr that is not part of the output; further lines of it are indented."""
    for line in wrapped(plain_text(message), indent, shown_width(sys.stderr), first=""):
        click.echo(line, err=True)


def plain_text(text: str) -> str:
    """Return a text of others' as one line that can't play tricks on a terminal."""
    return _tame(text).strip()


def _tame(text: str) -> str:
    return _CONTROL.sub(" ", _ESCAPE.sub("", text) if "\x1b" in text else text)


_ESCAPE: Final = re.compile(
    r"(?P<color>\x1b\[[0-9;:]*m)"
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC, DCS, SOS, PM, APC: up to their end
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)
_C1: Final = re.compile("[\x80-\x9f]")
_OTHER: Final = re.compile(
    _CONTROL.pattern.removesuffix("+").replace("\x00-\x1f", "\x00-\x08\x0a-\x1a\x1c-\x1f")
)


def terminal_text(line: str) -> str:
    """Return a line of a log that can be shown on a terminal: its colours stay, all else that means
    something to a terminal goes. Of what overwrote itself (`10%\\r20%`) the last is left."""
    line = line.rstrip("\r")
    line = line[line.rfind("\r") + 1 :]
    if line.isprintable():
        return line
    line = _C1.sub(lambda found: "\x1b" + chr(ord(found[0]) - 0x40), line)
    line = _ESCAPE.sub(lambda found: found["color"] or "", line)
    line = _OTHER.sub("", line)
    return line + "\x1b[0m" if "\x1b" in line else line


def first_line(text: str | None) -> str:
    """Return the first line of a text that says something."""
    return next((line for line in map(plain_text, (text or "").splitlines()) if line), "")


def show_json(answer: bytes) -> None:
    """Print the server's answer, laid out."""
    show_json_value(decoded(answer))


def show_json_value(value: Any) -> None:
    """Print plain data as JSON, laid out."""
    say(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return plain data as JSON in which no character means anything to a terminal."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown_width(stream: TextIO | None = None) -> int | None:
    """Return how many columns a line may have; None where the stream, by default stdout, is no terminal."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def redraws() -> bool:
    """Tell whether stdout is a terminal that can draw lines anew in place."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def text_width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def shortened(text: str, columns: int | None) -> str:
    """Return a text that takes at most so many columns, with … where it was cut."""
    if columns is None or text_width(text) <= columns:
        return text
    while text and text_width(text) > columns - 1:
        text = text[: -max(1, (text_width(text) - columns) // 2)]
    return f"{text.rstrip()}…"


def padded(text: str, columns: int) -> str:
    """Return a text with spaces up to so many columns."""
    return text + " " * (columns - text_width(text))


def wrapped(
    text: str, indent: str = "", columns: int | None = None, *, first: str | None = None
) -> list[str]:
    """Return a text as lines of at most so many columns, broken between words; `first`: another indent of the first.

    Only a word that is wider than a line is broken. Without `columns` it is one line.
    """
    first = indent if first is None else first
    if columns is None or text_width(first + text) <= columns:
        return [first + text]
    lines = [first]
    for word in _WORD.findall(text):
        if text_width(lines[-1] + word) > columns and lines[-1] not in (first, indent):
            lines.append(indent)
        text = word.lstrip() if lines[-1] in (first, indent) else word
        here, below = (max(columns - text_width(each), _LEAST) for each in (lines[-1], indent))
        *full, rest = _broken(text, here, below)
        for piece in full:
            lines[-1] += piece
            lines.append(indent)
        lines[-1] += rest
    return lines


def _broken(word: str, columns: int, below: int) -> Iterator[str]:
    """Yield a word in pieces, usually one: the first of at most `columns`, the others of `below`."""
    while len(word) > columns or text_width(word) > columns:
        end = columns
        while end > 1 and text_width(word[:end]) > columns:
            end -= 1
        yield word[:end]
        word, columns = word[end:], below
    yield word


def brief(text: str) -> str:
    """Return an error as it is shown on a terminal, where a line of it takes but a few of the terminal's."""
    columns = shown_width()
    if columns is None:
        return text
    return "\n".join(shortened(_tame(line), _ROWS * columns) for line in text.splitlines())


def show_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    empty: str,
    *,
    flexible: Sequence[str] = ("NAME",),
    optional: Sequence[str] = (),
) -> None:
    """Print rows under a line of headings.

    Where they don't fit on the terminal, the `flexible` columns are cut, and the `optional` ones left
    out, the last of them first.
    """
    if not rows:
        say_on_stderr(empty)
        return
    lines = [list(headings), *([plain_text(cell) for cell in row] for row in rows)]
    shown, widths = _fitting(lines, flexible, optional)
    for number, line in enumerate(lines):
        cells = [(line[column], widths[column]) for column in shown]
        say(_row([(shortened(text, width), width) for text, width in cells], heading=number == 0))


def _row(cells: Sequence[tuple[str, int]], *, heading: bool) -> str:
    last = len(cells) - 1
    texts = [
        styled(
            text if place == last else padded(text, width),
            "bold" if heading else _STYLES.get(text, ""),
        )
        for place, (text, width) in enumerate(cells)
    ]
    return "  ".join(texts).rstrip()


def _fitting(
    lines: Sequence[Sequence[str]], flexible: Sequence[str], optional: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return which columns are shown, and how wide each of all columns is."""
    headings = lines[0]
    widths = [max(text_width(line[at]) for line in lines) for at in range(len(headings))]
    shown, room = list(range(len(headings))), shown_width()
    if room is None:
        return shown, widths
    bends = [at for at in shown if headings[at] in flexible]
    least = [min(widths[at], _LEAST) if at in bends else widths[at] for at in shown]
    for name in reversed(optional):
        if _total(shown, least) <= room:
            break
        shown.remove(headings.index(name))
    while (over := _total(shown, widths) - room) > 0:
        widest = max((at for at in bends if at in shown), key=lambda at: widths[at], default=-1)
        if widest < 0 or widths[widest] <= _LEAST:
            break
        widths[widest] = max(_LEAST, widths[widest] - over)
    return shown, widths


def _total(shown: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[at] for at in shown) + 2 * (len(shown) - 1)


def styled(text: str, style: str) -> str:
    """Return a text in a colour, `bold` or `dim`; they are left out where they can't be shown."""
    if not style or not text:
        return text
    if style in ("bold", "dim"):
        return click.style(text, **{style: True})
    return click.style(text, fg=style)


def show_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, those without a value left out. A value may have many lines."""
    present = [(name, value) for name, value in fields if value]
    column = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        lines = [
            part
            for line in value.splitlines() or [""]
            for part in wrapped(_tame(line), " " * (column + 2), shown_width())
        ]
        say(f"{name.ljust(column)}  {lines[0].lstrip()}")
        for line in lines[1:]:
            say(line)


def percent(number: float) -> str:
    """Return a percentage."""
    return f"{number:.0f}%"
