"""Instants to the nanosecond, on a calendar without ends (Python's stops at 9999)."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from shared.expressions.errors import ExpressionError
from shared.expressions.values.durations import DURATION_SECOND, Duration, clamped
from shared.expressions.values.kinds import Month, Weekday
from shared.expressions.values.zones import GREENWICH, Fixed, Location, Offset

_DAY = 86_400
_ZERO_SECOND = -62_135_596_800
"""The second of the year 1's first day, which Go calls the zero time."""
_FAR = 10**18
"""Seconds from 1970 past which an instant is refused (Go's would start again)."""


class Civil(msgspec.Struct, frozen=True):
    """A date on the calendar; `day_of_year` counts from one, `weekday` from Sunday, zero."""

    year: int
    month: int
    day: int
    day_of_year: int
    weekday: int


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1 January 1970 to a date of the proleptic Gregorian calendar; a day past its month
    counts on into the next."""
    shifted = year - (month <= 2)
    era, year_of_era = divmod(shifted, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return (
        era * 146_097
        + year_of_era * 365
        + year_of_era // 4
        - year_of_era // 100
        + day_of_year
        - 719_468
    )


def civil_from_days(days: int) -> Civil:
    """Return the date that many days after 1 January 1970."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (
        day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    year = era * 400 + year_of_era + (month <= 2)
    from_new_year = days - days_from_civil(year, 1, 1) + 1
    return Civil(year, month, day, from_new_year, (days + 4) % 7)


class Time:
    """An instant, shown in a zone. `second` counts from 1970 in UTC, `ns` the rest of it."""

    __slots__ = ("ns", "second", "zone")

    def __init__(self, second: int, ns: int = 0, zone: Location = GREENWICH) -> None:
        if abs(second) > _FAR:
            raise ExpressionError("the date is too far away")
        self.second = second
        self.ns = ns
        self.zone = zone

    @classmethod
    def of(cls, moment: datetime) -> Time:
        """Return the instant of a datetime that knows its zone; of its zone only the offset stays."""
        offset = moment.utcoffset()
        if offset is None:
            raise ValueError("a datetime without a zone is no instant")
        passed = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        second = passed.days * _DAY + passed.seconds
        east = round(offset.total_seconds())
        zone = GREENWICH if east == 0 else Fixed("", east)
        return cls(second, passed.microseconds * 1_000, zone)

    @classmethod
    def civil(
        cls, date: tuple[int, int, int], clock: tuple[int, int, int], ns: int, zone: Location
    ) -> Time:
        """Return the instant when the clocks of `zone` show that date and time, months and days out of
        range counting on. An hour that a change of clocks skips is taken with the offset before it."""
        year, month, day = date
        years, month = divmod(month - 1, 12)
        days = days_from_civil(year + years, month + 1, 1) + day - 1
        hour, minute, second = clock
        shown = days * _DAY + hour * 3_600 + minute * 60 + second
        offset = zone.at(shown).seconds
        if offset:
            offset = zone.at(shown - offset).seconds
        return cls(shown - offset, ns, zone)

    # What the calendar and the clock show

    def offset(self) -> Offset:
        """Return what holds in its zone at this instant."""
        return self.zone.at(self.second)

    def _shown(self) -> int:
        return self.second + self.offset().seconds

    def date(self) -> Civil:
        """Return the date in its zone."""
        return civil_from_days(self._shown() // _DAY)

    def clock(self) -> tuple[int, int, int]:
        """Hour, minute and second in its zone."""
        second = self._shown() % _DAY
        return second // 3_600, second // 60 % 60, second % 60

    def month(self) -> Month:
        """Return the month in its zone."""
        return Month(self.date().month)

    def weekday(self) -> Weekday:
        """Return the day of the week in its zone."""
        return Weekday(self.date().weekday)

    def iso_year(self) -> int:
        """Return the year that its ISO week belongs to."""
        days = self._shown() // _DAY
        thursday = days - (days + 3) % 7 + 3
        return civil_from_days(thursday).year

    # Arithmetic

    def total_ns(self) -> int:
        """Return the nanoseconds from 1970."""
        return self.second * DURATION_SECOND + self.ns

    def add(self, length: Duration) -> Time:
        """Return the instant that much later."""
        second, ns = divmod(self.total_ns() + length.ns, DURATION_SECOND)
        return Time(second, ns, self.zone)

    def sub(self, other: Time) -> Duration:
        """Return how long after `other` it is, never past what a duration holds."""
        return clamped(self.total_ns() - other.total_ns())

    def add_date(self, years: int, months: int, days: int) -> Time:
        """Return the same time of day that many years, months and days on."""
        if max(abs(years), abs(months), abs(days)) > _FAR // 10**7:
            raise ExpressionError("the date is too far away")
        date = self.date()
        moved = (date.year + years, date.month + months, date.day + days)
        return Time.civil(moved, self.clock(), self.ns, self.zone)

    def truncate(self, step: Duration) -> Time:
        """Return the last multiple of `step`, counted from the zero time, not after it."""
        if step.ns <= 0:
            return self
        return self.add(Duration(-(self._since_zero() % step.ns)))

    def round(self, step: Duration) -> Time:
        """Return the nearest multiple of `step`, counted from the zero time; halves go up."""
        if step.ns <= 0:
            return self
        over = self._since_zero() % step.ns
        if over * 2 < step.ns:
            return self.add(Duration(-over))
        return self.add(Duration(step.ns - over))

    def _since_zero(self) -> int:
        return (self.second - _ZERO_SECOND) * DURATION_SECOND + self.ns

    def is_zero(self) -> bool:
        """Return whether it is the first instant of the year 1, in UTC."""
        return self.second == _ZERO_SECOND and self.ns == 0

    def placed(self, zone: Location) -> Time:
        """Return the same instant, shown in another zone."""
        return Time(self.second, self.ns, zone)

    # Comparison is by instant, wherever it is shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Time) and self.total_ns() == other.total_ns()

    def __lt__(self, other: Time) -> bool:
        return self.total_ns() < other.total_ns()

    def __hash__(self) -> int:
        return hash(("time", self.second, self.ns))
