"""Instants read from text by a layout, as Go's `time.Parse` reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from shared.expressions.errors import ExpressionError
from shared.expressions.values.kinds import Month, Weekday
from shared.expressions.values.layouts import DEFAULT_LAYOUTS, chunks
from shared.expressions.values.moments import Time, days_from_civil
from shared.expressions.values.zones import GREENWICH, LOCAL, Fixed, Location

_FRACTION = re.compile(r"[.,]([0-9]+)")
_SPACES_OR_NONE = re.compile(r" +|[^ ]+")
_HALF_YEAR = 182 * 86_400


class _Read(msgspec.Struct):
    """What has been read so far; a part not read yet is None or -1."""

    rest: str
    year: int = 0
    month: int = -1
    day: int = -1
    day_of_year: int = -1
    hour: int = 0
    minute: int = 0
    second: int = 0
    ns: int = 0
    afternoon: bool = False
    morning: bool = False
    zone: Location | None = None
    offset: int | None = None
    zone_name: str = ""

    def number(self, pattern: str, low: int, high: int) -> int:
        """Take the number at the front. Raises ValueError where none is, or it is out of range."""
        match = re.match(pattern, self.rest)
        if match is None:
            raise ValueError("no number")
        self.rest = self.rest[match.end() :]
        value = int(match.group().strip())
        if not low <= value <= high:
            raise ValueError("out of range")
        return value

    def named(self, names: Sequence[str]) -> int:
        """Take one of the names at the front, in any case, and tell which."""
        for index, name in enumerate(names):
            if self.rest[: len(name)].lower() == name.lower():
                self.rest = self.rest[len(name) :]
                return index
        raise ValueError("no such name")

    def skip(self, plain: str) -> None:
        """Take the plain text of a layout; a run of spaces stands for any number of them."""
        for piece in _SPACES_OR_NONE.findall(plain):
            if piece[0] == " ":
                if self.rest and self.rest[0] != " ":
                    raise ValueError("a space is missing")
                self.rest = self.rest.lstrip(" ")
            elif self.rest.startswith(piece):
                self.rest = self.rest[len(piece) :]
            else:
                raise ValueError("the text differs from its layout")


_ONE_OR_TWO, _TWO = r"[0-9]{1,2}", r"[0-9]{2}"
_PADDED, _OFFSET = r" ?[0-9]{1,2}", re.compile(r"([+-])([0-9]{2}):?([0-9]{2})?:?([0-9]{2})?")


def _year(read: _Read) -> None:
    read.year = read.number(r"[0-9]{4}", 0, 9999)


def _short_year(read: _Read) -> None:
    year = read.number(_TWO, 0, 99)
    read.year = year + (1900 if year >= 69 else 2000)


def _half(read: _Read) -> None:
    half = read.named(("AM", "PM")) if read.rest[:1].isupper() else read.named(("am", "pm"))
    read.afternoon, read.morning = half == 1, half == 0


def _part(name: str, pattern: str, low: int, high: int) -> Callable[[_Read], None]:
    def take(read: _Read) -> None:
        setattr(read, name, read.number(pattern, low, high))

    return take


def _month_name(names: Sequence[str]) -> Callable[[_Read], None]:
    def take(read: _Read) -> None:
        read.month = read.named(names) + 1

    return take


def _weekday_name(names: Sequence[str]) -> Callable[[_Read], None]:
    def take(read: _Read) -> None:
        read.named(names)

    return take


def _zone_word(read: _Read) -> None:
    if read.rest.startswith("UTC"):
        read.zone, read.rest = GREENWICH, read.rest[3:]
        return
    length = _abbreviation(read.rest)
    if not length:
        raise ValueError("no time zone")
    read.zone_name, read.rest = read.rest[:length], read.rest[length:]


_READERS: dict[str, Callable[[_Read], None]] = {
    "2006": _year,
    "06": _short_year,
    "January": _month_name(Month.NAMES),
    "Jan": _month_name([name[:3] for name in Month.NAMES]),
    "01": _part("month", _TWO, 1, 12),
    "1": _part("month", _ONE_OR_TWO, 1, 12),
    "Monday": _weekday_name(Weekday.NAMES),
    "Mon": _weekday_name([name[:3] for name in Weekday.NAMES]),
    "02": _part("day", _TWO, 0, 99),
    "_2": _part("day", _PADDED, 0, 99),
    "2": _part("day", _ONE_OR_TWO, 0, 99),
    "002": _part("day_of_year", r"[0-9]{3}", 0, 999),
    "__2": _part("day_of_year", r" {0,2}[0-9]{1,3}", 0, 999),
    "15": _part("hour", _ONE_OR_TWO, 0, 23),
    "03": _part("hour", _TWO, 0, 12),
    "3": _part("hour", _ONE_OR_TWO, 0, 12),
    "04": _part("minute", _TWO, 0, 59),
    "4": _part("minute", _ONE_OR_TWO, 0, 59),
    "05": _part("second", _TWO, 0, 59),
    "5": _part("second", _ONE_OR_TWO, 0, 59),
    "PM": _half,
    "pm": _half,
    "MST": _zone_word,
}


def _abbreviation(text: str) -> int:
    """Return the length of the name of a time at the front of the text, 0 where there is none."""
    if text[:4] in ("ChST", "MeST"):
        return 4
    if text.startswith("GMT"):
        return 3 + _signed_hours(text[3:])
    if text[:1] in ("+", "-"):
        return _signed_hours(text)
    letters = re.match(r"[A-Z]{0,6}", text)
    length = letters.end() if letters else 0
    if length == 5:
        return 5 if text[4] == "T" else 0
    if length == 4:
        return 4 if text[3] == "T" or text.startswith("WITA") else 0
    return 3 if length == 3 else 0


def _signed_hours(text: str) -> int:
    match = re.match(r"[+-]([0-9]+)", text)
    if match is None or int(match.group(1)[:4]) > 23:
        return 0
    return match.end()


def _fraction(read: _Read, part: str) -> None:
    match = _FRACTION.match(read.rest)
    if part[1] == "0":
        if match is None or len(match.group(1)) < len(part) - 1:
            raise ValueError("the fraction is missing")
        digits = match.group(1)[: len(part) - 1]
    elif match is None:
        return
    else:
        digits = match.group(1)
    _take_fraction(read, digits)


def _take_fraction(read: _Read, digits: str) -> None:
    read.ns = int(digits[:9].ljust(9, "0"))
    read.rest = read.rest[1 + len(digits) :]


def _offset(read: _Read, part: str) -> None:
    if part.startswith("Z") and read.rest.startswith("Z"):
        read.zone, read.rest = GREENWICH, read.rest[1:]
        return
    length = len(part) - 1 if part.startswith("-") else len(part)
    width = length + (1 if part.startswith("-") else 0)
    written = read.rest[:width]
    match = _OFFSET.fullmatch(written)
    if match is None or len(written) != width or written.count(":") != part.count(":"):
        raise ValueError("no offset")
    hours, minutes, seconds = (int(group or "0") for group in match.groups()[1:])
    if hours > 24 or minutes > 60 or seconds > 60:
        raise ValueError("the offset is out of range")
    read.offset = (hours * 3_600 + minutes * 60 + seconds) * (-1 if match.group(1) == "-" else 1)
    read.rest = read.rest[width:]


def _take(read: _Read, part: str, following: str) -> None:
    reader = _READERS.get(part)
    if reader is None:
        (_fraction if part[:1] in ".," else _offset)(read, part)
        return
    reader(read)
    if part in ("05", "5") and following[:1] not in (".", ","):
        match = _FRACTION.match(read.rest)
        if match is not None:
            _take_fraction(read, match.group(1))


def parse_time(text: str, layout: str, zone: Location | None = None) -> Time:
    """Return the instant that `text` writes in `layout`; without a zone in it, in `zone` (UTC by default).

    Raises a fault where the text does not follow the layout, or no calendar has that day.
    """
    try:
        read = _read(text, layout)
        return _assembled(read, zone)
    except ValueError:
        raise ExpressionError("the text is not a date in that layout") from None


def _read(text: str, layout: str) -> _Read:
    read = _Read(text)
    found = chunks(layout)
    for index, (plain, part) in enumerate(found):
        read.skip(plain)
        if not part:
            break
        plain_next, part_next = found[index + 1]
        _take(read, part, "" if plain_next else part_next)
    if read.rest:
        raise ValueError("there is more text than layout")
    return read


def _assembled(read: _Read, zone: Location | None) -> Time:
    hour = read.hour
    if read.afternoon and hour < 12:
        hour += 12
    elif read.morning and hour == 12:
        hour = 0
    month, day = _day(read)
    date, clock = (read.year, month, day), (hour, read.minute, read.second)
    if read.zone is not None:
        return Time.civil(date, clock, read.ns, read.zone)
    if read.offset is None and not read.zone_name:
        return Time.civil(date, clock, read.ns, zone or GREENWICH)
    return _placed(Time.civil(date, clock, read.ns, GREENWICH), read, zone or LOCAL)


def _day(read: _Read) -> tuple[int, int]:
    if read.day_of_year >= 0:
        year_length = days_from_civil(read.year + 1, 1, 1) - days_from_civil(read.year, 1, 1)
        if not 1 <= read.day_of_year <= year_length:
            raise ValueError("the year has no such day")
        date = Time.civil((read.year, 1, read.day_of_year), (0, 0, 0), 0, GREENWICH).date()
        if read.month not in (-1, date.month) or read.day not in (-1, date.day):
            raise ValueError("the day of the year is another date")
        return date.month, date.day
    month, day = (
        max(read.month, 1) if read.month < 0 else read.month,
        1 if read.day < 0 else read.day,
    )
    year, next_month = (read.year, month + 1) if month < 12 else (read.year + 1, 1)
    length = days_from_civil(year, next_month, 1) - days_from_civil(read.year, month, 1)
    if not 1 <= day <= length:
        raise ValueError("the month has no such day")
    return month, day


def _placed(shown: Time, read: _Read, local: Location) -> Time:
    """Return the instant of what is shown, by the offset or the name of the time that stood in the text."""
    if read.offset is not None:
        second = shown.second - read.offset
        here = local.at(second)
        if here.seconds == read.offset and read.zone_name in ("", here.name):
            return Time(second, shown.ns, local)
        return Time(second, shown.ns, Fixed(read.zone_name, read.offset))
    for second in (shown.second, shown.second - _HALF_YEAR, shown.second + _HALF_YEAR):
        there = local.at(second)
        if there.name == read.zone_name:
            return Time(shown.second - there.seconds, shown.ns, local)
    offset = 0
    if read.zone_name.startswith("GMT") and len(read.zone_name) > 3:
        offset = int(read.zone_name[3:]) * 3_600
    return Time(shown.second, shown.ns, Fixed(read.zone_name, offset))


def parse_any(text: str, zone: Location | None = None) -> Time:
    """Return the instant that `text` writes in the first of the usual layouts that fits."""
    for layout in DEFAULT_LAYOUTS:
        try:
            return parse_time(text, layout, zone)
        except ExpressionError:
            continue
    raise ExpressionError("the text is not a date in any of the usual layouts")
