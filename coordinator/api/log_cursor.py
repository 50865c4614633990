"""The position in a log stream, as encoded in `Last-Event-ID` (REST API spec, log streams).

A job's log is the logs of its container tasks, each in order. Tasks take part by (creation, id), so
the place is short however many there are: all tasks up to a mark are done, but for those listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from shared.model.documents import Micros

TaskKey = tuple[Micros, str]
"""When a task was created, and its id."""

START: Final[TaskKey] = (0, "")

_MARK: Final = re.compile(r"(\d{1,18})-([\w.-]{0,64})")
_PLACE: Final = re.compile(r"([\w-]{1,64})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})")
_MOST: Final = 256


class LogPlace(msgspec.Struct):
    """How much of one task's log was sent: `number` whole parts of `run`, and `line` lines more."""

    task_id: str
    run: int = 0
    number: int = 0
    line: int = 0

    def restart(self, run: int) -> None:
        """Go to the beginning of a newer run."""
        self.run, self.number, self.line = run, 0, 0


class LogCursor(msgspec.Struct, frozen=True):
    """All tasks up to `mark` are done, but for `places`."""

    mark: TaskKey = START
    places: tuple[LogPlace, ...] = ()


def write_cursor(mark: TaskKey, places: Iterable[LogPlace]) -> str:
    """Return a cursor as the id of an event."""
    texts = [f"{mark[0]}-{mark[1]}"]
    texts += [f"{each.task_id}.{each.run}.{each.number}.{each.line}" for each in places]
    return "~".join(texts)


def read_cursor(text: str) -> LogCursor:
    """Return the cursor that an event's id stands for; the beginning where it is none of ours.

    A browser sends what it last heard, again and again: to refuse that would end its stream for good."""
    first, *rest = text.split("~", _MOST + 1)
    mark = _MARK.fullmatch(first)
    places = [_PLACE.fullmatch(part) for part in rest]
    if mark is None or len(rest) > _MOST or None in places:
        return LogCursor()
    return LogCursor(
        mark=(int(mark[1]), mark[2]),
        places=tuple(
            LogPlace(found[1], int(found[2]), int(found[3]), int(found[4]))
            for found in places
            if found is not None
        ),
    )
