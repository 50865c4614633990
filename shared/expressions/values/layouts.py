"""Dates as text, by layouts that show how 2 January 2006, 15:04:05 would be written (as Go's do)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from shared.expressions.errors import limit_error
from shared.expressions.limits import MAX_LAYOUT
from shared.expressions.values.moments import Time
from shared.expressions.values.zones import Offset

_LETTERS = (
    "January|Jan|Monday|Mon|MST|2006|__2|_2(?!006)|002|01|02|03|04|05|06|15|PM|pm"
    "|-07:00:00|-070000|-07:00|-0700|-07|Z07:00:00|Z070000|Z07:00|Z0700|Z07|[.,](?:0+|9+)(?![0-9])|1|2|3|4|5"
)
_CHUNK = re.compile(_LETTERS)


@lru_cache(maxsize=256)
def chunks(layout: str) -> tuple[tuple[str, str], ...]:
    """Return the layout as pairs of plain text and the reference part after it (empty after the last). Raises a `limit`
    fault where it is too long."""
    if len(layout) > MAX_LAYOUT:
        raise limit_error(f"the layout of a date has more than {MAX_LAYOUT:,} characters")
    found: list[tuple[str, str]] = []
    plain, position = "", 0
    while position < len(layout):
        match = _CHUNK.match(layout, position)
        part = _refused(match.group(), layout, position) if match else ""
        if not part:
            plain += layout[position]
            position += 1
            continue
        found.append((plain, part))
        plain, position = "", position + len(part)
    found.append((plain, ""))
    return tuple(found)


def _refused(part: str, layout: str, position: int) -> str:
    """Return the part that really stands there: `Jan` in `Janet` and `Mon` in `Month` are plain text."""
    following = layout[position + 3 : position + 4]
    if part in ("Jan", "Mon") and "a" <= following <= "z":
        return ""
    return part


DATE = "2006-01-02"
CLOCK = "15:04:05"
RFC3339 = "2006-01-02T15:04:05Z07:00"
DEFAULT_LAYOUTS = (
    DATE,
    CLOCK,
    f"{DATE} {CLOCK}",
    RFC3339,
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
)
"""What `date()` tries, in this order, when it is given no layout."""
SHOWN = "2006-01-02 15:04:05.999999999 -0700 MST"
"""How an instant looks as text."""
RFC3339_NANO = "2006-01-02T15:04:05.999999999Z07:00"


def _year(time: Time) -> str:
    year = time.date().year
    return f"{'-' if year < 0 else ''}{abs(year):04d}"


def _half_day(time: Time) -> int:
    return time.clock()[0] % 12 or 12


_WRITERS: dict[str, Callable[[Time], str]] = {
    "2006": _year,
    "06": lambda time: f"{time.date().year % 100:02d}",
    "January": lambda time: str(time.month()),
    "Jan": lambda time: str(time.month())[:3],
    "01": lambda time: f"{time.date().month:02d}",
    "1": lambda time: str(time.date().month),
    "Monday": lambda time: str(time.weekday()),
    "Mon": lambda time: str(time.weekday())[:3],
    "02": lambda time: f"{time.date().day:02d}",
    "_2": lambda time: f"{time.date().day:2d}",
    "2": lambda time: str(time.date().day),
    "002": lambda time: f"{time.date().day_of_year:03d}",
    "__2": lambda time: f"{time.date().day_of_year:3d}",
    "15": lambda time: f"{time.clock()[0]:02d}",
    "03": lambda time: f"{_half_day(time):02d}",
    "3": lambda time: str(_half_day(time)),
    "04": lambda time: f"{time.clock()[1]:02d}",
    "4": lambda time: str(time.clock()[1]),
    "05": lambda time: f"{time.clock()[2]:02d}",
    "5": lambda time: str(time.clock()[2]),
    "PM": lambda time: "PM" if time.clock()[0] >= 12 else "AM",
    "pm": lambda time: "pm" if time.clock()[0] >= 12 else "am",
    "MST": lambda time: _zone_name(time.offset()),
}


def _zone_name(offset: Offset) -> str:
    return offset.name or _offset_text(offset.seconds, "-0700")


def _offset_text(seconds: int, form: str) -> str:
    if form.startswith("Z") and seconds == 0:
        return "Z"
    minutes = abs(seconds) // 60
    parts = [f"{minutes // 60:02d}"]
    if len(form) > 3:
        parts.append(f"{minutes % 60:02d}")
    if len(form) > 6:
        parts.append(f"{abs(seconds) % 60:02d}")
    return ("-" if seconds < 0 and (minutes or seconds) else "+") + (
        ":" if ":" in form else ""
    ).join(parts)


def _fraction(ns: int, form: str) -> str:
    digits = f"{ns:09d}"[: len(form) - 1].ljust(len(form) - 1, "0")
    if form[1] == "9":
        digits = digits.rstrip("0")
        return form[0] + digits if digits else ""
    return form[0] + digits


def format_time(time: Time, layout: str) -> str:
    """Return the instant as `layout` shows it."""
    written: list[str] = []
    for plain, part in chunks(layout):
        written.append(plain)
        writer = _WRITERS.get(part)
        if writer is not None:
            written.append(writer(time))
        elif part[:1] in (".", ","):
            written.append(_fraction(time.ns, part))
        elif part:
            written.append(_offset_text(time.offset().seconds, part))
    return "".join(written)
