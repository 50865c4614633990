"""Times and durations as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:  # commands that ask no server import this module
    from haulier.transport import Transport


def wall_time(client: Transport | None = None) -> datetime:
    """Return the time by this machine's clock, or by that of the server that `client` asked."""
    ahead = client.clock_ahead if client is not None else 0.0
    return datetime.now(UTC) + timedelta(seconds=ahead)


def in_words(seconds: float) -> str:
    """Return a duration by its two greatest units: `7.4s`, `1m 05s`, `2h 03m`, `3d 04h`."""
    if seconds < 60:
        return f"{max(seconds, 0.0):.1f}s" if seconds < 59.95 else "1m 00s"
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {whole % 60:02}s"


def time_between(start: datetime | None, end: datetime | None) -> str:
    """Return how long something took, nothing where that is not known."""
    return in_words((end - start).total_seconds()) if start and end else ""


def relative(time: datetime | None, at: datetime | None = None) -> str:
    """Return a time as seen from `at`, by default now: `3 min ago`, `in 2 h`, `just now`."""
    if time is None:
        return ""
    passed = ((at or wall_time()) - time).total_seconds()
    span = _span(abs(passed))
    if not span:
        return "just now" if passed >= 0 else "now"
    return f"{span} ago" if passed > 0 else f"in {span}"


def _span(seconds: float) -> str:
    if seconds < 2:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    for size, name in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''}"
    return ""


def moment(time: datetime | None, at: datetime | None = None) -> str:
    """Return a time on this machine's clock, with its zone, and how long ago that is."""
    if time is None:
        return ""
    return f"{zoned(time)} ({relative(time, at)})"


def zoned(time: datetime | None) -> str:
    """Return a time to the second in this machine's zone, which is named."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if time else ""


_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a duration such as `90s`, `10m` or `1h30m`, given as an option."""
    if value is None:
        return None
    if not value or _DURATION.sub("", value):
        raise click.BadParameter(f"{value!r} is no duration such as 90s, 10m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(value))
