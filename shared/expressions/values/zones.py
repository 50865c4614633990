"""Time zones: what the clocks of a place showed at an instant."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from shared.expressions.errors import ExpressionError

_FOUR_CENTURIES = 146_097 * 86_400
"""Seconds after which the calendar, and with it the rules of a zone, repeat."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_510_400, 253_370_764_800
"""The seconds (of the years 2 and 9999) between which Python's calendar reaches."""
_NAME = re.compile(r"[A-Za-z0-9_+\-]+(?:/[A-Za-z0-9_+\-]+)*")


class Offset(msgspec.Struct, frozen=True):
    """What holds in a zone at an instant: the name of its time, seconds east, summer time or not."""

    name: str
    seconds: int
    summer: bool


class Location(Protocol):
    """A place with its clocks."""

    @property
    def name(self) -> str:
        """The name that the place goes by."""
        ...

    def at(self, second: int) -> Offset:
        """Return what holds at `second`, counted from 1970 in UTC."""
        ...


class Fixed:
    """A zone that never changes; one without a name shows its offset instead."""

    __slots__ = ("_offset", "name")

    def __init__(self, name: str, seconds: int, shown: str | None = None) -> None:
        self.name = name
        self._offset = Offset(name if shown is None else shown, seconds, summer=False)

    def at(self, second: int) -> Offset:  # noqa: ARG002 - the protocol's
        """Return the one offset there is."""
        return self._offset

    def __str__(self) -> str:
        return self.name


class Region:
    """A zone of the IANA database."""

    __slots__ = ("_zone", "name")

    def __init__(self, name: str, zone: ZoneInfo) -> None:
        self.name = name
        self._zone = zone

    def at(self, second: int) -> Offset:
        """Return what held or will hold there at `second`."""
        while second > _LAST:
            second -= _FOUR_CENTURIES * max(1, (second - _LAST) // _FOUR_CENTURIES)
        moment = _EPOCH + timedelta(seconds=max(second, _FIRST))
        local = moment.astimezone(self._zone)
        offset = local.utcoffset() or timedelta()
        return Offset(local.tzname() or "", round(offset.total_seconds()), bool(local.dst()))

    def __str__(self) -> str:
        return self.name


GREENWICH = Fixed("UTC", 0)
"""The zone of every instant that names none."""
LOCAL = Fixed("Local", 0, shown="UTC")
"""The zone of the machine, which an expression must not depend on: it is UTC under another name."""


@lru_cache(maxsize=256)
def load_location(name: str) -> Location:
    """Return the zone of that IANA name; `UTC` and the empty name are UTC. Raises a fault if unknown."""
    if name in ("", "UTC"):
        return GREENWICH
    if name == "Local":
        return LOCAL
    if not _NAME.fullmatch(name):
        raise ExpressionError("the text is not the name of a time zone")
    try:
        return Region(name, ZoneInfo(name))
    except (OSError, ValueError, KeyError):
        raise ExpressionError("there is no time zone of that name") from None
