"""How many deliveries of webhooks may be under way: in all, of one user, of one job, and to one receiver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Final, TypeVar

import msgspec
from cachetools import LRUCache

from coordinator.due.fair_order import in_turn

_T = TypeVar("_T")

DELIVERIES_AT_ONCE: Final = 100
LIMIT_OF_A_USER: Final = 60
LIMIT_OF_A_JOB: Final = 40
LIMIT_OF_A_HOST: Final = 20
"""Deliveries under way at a time: who hangs, or has very many, keeps only its own waiting."""

LIMIT_AFTER_A_TIMEOUT: Final = 1
"""Those to a host that let the last one time out, until it answers again."""

KNOWN_HOSTS: Final = 2_000

_GUESS: Final = 0.25
_LONGEST: Final = 60.0
"""Seconds that a delivery is said to take where nothing is known, and that one which finds no room waits at most."""


class Place(msgspec.Struct, frozen=True):
    """Whose a delivery is, and where it goes."""

    user: str
    job: str
    host: str


class _Host(msgspec.Struct):
    limit: int = LIMIT_OF_A_HOST
    seconds: float = _GUESS
    """About how long it takes to answer."""


class Places:
    """The deliveries under way in this process, by id."""

    def __init__(self) -> None:
        self._taken: dict[str, Place] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._hosts: LRUCache[str, _Host] = LRUCache(KNOWN_HOSTS)

    def __contains__(self, id: str) -> bool:
        return id in self._taken

    @property
    def full(self) -> bool:
        """Whether no delivery at all has room."""
        return len(self._taken) >= DELIVERIES_AT_ONCE

    def has_room_for(self, place: Place) -> bool:
        """Return whether one more delivery may begin there."""
        return not self.full and all(
            self._counts[kind, value] < limit
            for kind, value, limit in (
                ("user", place.user, LIMIT_OF_A_USER),
                ("job", place.job, LIMIT_OF_A_JOB),
                ("host", place.host, self._host(place.host).limit),
            )
        )

    def in_turn(self, waiting: Iterable[_T], place: Callable[[_T], Place]) -> list[_T]:
        """Return what waits in the order in which it has its turn: by user, then job, then host; whoever has fewer
        under way comes first."""
        for owner in (_whole, _job, _user):
            had = Counter(map(owner, self._taken.values()))
            waiting = in_turn(waiting, _owner_of(place, owner), had)
        return list(waiting)

    def take(self, id: str, place: Place) -> None:
        """Note that a delivery is under way."""
        self._taken[id] = place
        self._counts.update(_keys(place))

    def give_back(self, id: str) -> None:
        """Note that it is no more."""
        self._counts.subtract(_keys(self._taken.pop(id)))
        self._counts += Counter()  # without those that have none left

    def tried(self, host: str, seconds: float, *, timed_out: bool) -> None:
        """Learn from a try how many a host is given at a time, and how long it takes."""
        known = self._host(host)
        known.limit = LIMIT_AFTER_A_TIMEOUT if timed_out else LIMIT_OF_A_HOST
        known.seconds = (known.seconds + seconds) / 2
        self._hosts[host] = known

    def wait(self, host: str, before: int) -> float:
        """Return in how many seconds a delivery may find room behind `before` others that wait for the same host."""
        known = self._host(host)
        return min(_LONGEST, known.seconds * (1 + before // known.limit))

    def _host(self, host: str) -> _Host:
        return self._hosts.get(host) or _Host()


def _keys(place: Place) -> list[tuple[str, str]]:
    return [("user", place.user), ("job", place.job), ("host", place.host)]


def _whole(place: Place) -> Hashable:
    return place


def _job(place: Place) -> Hashable:
    return place.user, place.job


def _user(place: Place) -> Hashable:
    return place.user


def _owner_of(
    place: Callable[[_T], Place], owner: Callable[[Place], Hashable]
) -> Callable[[_T], Hashable]:
    return lambda item: owner(place(item))
