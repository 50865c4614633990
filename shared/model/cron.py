"""Parses a schedule's `cron` and `at` (job language spec, Schedule).

Firing times are computed where schedules are kept; here it is only said what the text means, so
that a bad one is refused when it is submitted.
"""

import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cronsim import CronSim, CronSimError

from shared.durations import NANOS_PER_HOUR, NANOS_PER_SECOND, parse_duration

_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONE: Final = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+")
_OPEN_STEP: Final = re.compile(r"([0-9A-Za-z]+)/([0-9]+)")
_FIELDS: Final = 5
_HIGHEST: Final = ("59", "23", "31", "12", "6")
_LONGEST: Final = 1_000
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_FARTHEST: Final = 100 * 366 * 24 * NANOS_PER_HOUR
_ANY_TIME: Final = datetime(2024, 1, 1, tzinfo=UTC)


class Cron(msgspec.Struct, frozen=True):
    """A parsed `cron`: either `fields` or `every_seconds` is set."""

    timezone: str | None
    """The zone the text itself names by `CRON_TZ=` or `TZ=`."""
    fields: str | None
    """Five fields that cronsim takes, with macros and open steps (`0/5`) written out."""
    every_seconds: int | None
    """The period of `@every`, whole seconds, at least 1."""


def parse_cron(text: str) -> Cron:
    """Read five fields, a macro (`@hourly`) or `@every 90s`, with or without a zone before it.

    Raises ValueError with a message for the user.
    """
    if len(text) > _LONGEST:
        raise ValueError("the schedule is too long")
    text = text.strip()
    zone = _ZONE.match(text)
    name = zone[1] if zone else None
    if name is not None and (problem := timezone_problem(name)):
        raise ValueError(problem)
    rest = text[zone.end() :] if zone else text
    if rest.startswith("@every"):
        return Cron(name, None, _period(rest.removeprefix("@every").strip()))
    return Cron(name, _five_fields(rest), None)


def cron_problem(text: str) -> str | None:
    """Return what is wrong with a schedule's text, or None."""
    try:
        parse_cron(text)
    except ValueError as error:
        return str(error)
    return None


def at_problem(text: str) -> str | None:
    """Return what is wrong with the time of a single firing, or None."""
    try:
        parse_at(text, _ANY_TIME)
    except ValueError as error:
        return str(error)
    return None


def timezone_problem(name: str) -> str | None:
    """Return what is wrong with the name of a time zone, or None."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return f'"{name[:64]}" is not a time zone: write an IANA name like Europe/Berlin'
    return None


def parse_at(text: str, now: datetime) -> datetime:
    """Read when a schedule fires once: an RFC 3339 time, or a duration from `now`.

    Raises ValueError with a message for the user.
    """
    if not _RFC3339.fullmatch(text):
        return now + _ahead(text)
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from error


def _ahead(text: str) -> timedelta:
    try:
        nanos = parse_duration(text)
    except ValueError as error:
        raise ValueError(
            "must be a time such as 2030-01-31T06:30:00Z, or a duration from now such as 2h30m"
        ) from error
    if not 0 < nanos <= _FARTHEST:
        raise ValueError("a duration from now must be more than 0s, and at most 100 years")
    return timedelta(microseconds=nanos // 1_000)


def _period(text: str) -> int:
    period = parse_duration(text)
    if period < NANOS_PER_SECOND:
        raise ValueError("@every must be at least 1s")
    return period // NANOS_PER_SECOND


def _five_fields(text: str) -> str:
    if text.startswith("@"):
        if text not in _MACROS:
            raise ValueError(f"unknown schedule; use one of {', '.join(_MACROS)} and @every 90s")
        return _MACROS[text]
    fields = text.split()
    if len(fields) != _FIELDS:
        raise ValueError(
            f"a schedule has five fields (minute hour day month weekday), this has {len(fields)}"
        )
    written = " ".join(_close_steps(f, top) for f, top in zip(fields, _HIGHEST, strict=True))
    try:
        next(CronSim(written, _ANY_TIME))
    except CronSimError as error:
        raise ValueError(f"not a schedule: {error}") from None
    except StopIteration:
        raise ValueError("the schedule never fires") from None
    return written


def _close_steps(field: str, highest: str) -> str:
    """`0/5` as `0-59/5`."""
    terms = field.replace("?", "*").split(",")
    return ",".join(
        _OPEN_STEP.sub(rf"\1-{highest}/\2", t) if _OPEN_STEP.fullmatch(t) else t for t in terms
    )
