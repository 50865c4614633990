"""Lets few fan-outs grow at a time, users in turn, so that others' writes need not wait behind those of hundreds.

What waits for its turn holds no place, of a handler or of due work: others' messages are handled meanwhile.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

from coordinator.effects.evaluations import EvaluationBusy
from coordinator.turns import Turns

GROWING_AT_ONCE = 4
"""Fan-outs that insert a batch of children at a time."""

MOST_WAITING = 100
"""Fan-outs of one user that wait for a turn, having given a place back; what is beyond is due work."""


place_held: ContextVar[asyncio.Future[None] | None] = ContextVar("place_held", default=None)
"""Done once whoever follows something need not keep their place any more: that of a handler, or one of due work."""


class FanOuts:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._turns = Turns(GROWING_AT_ONCE)
        self._growing: set[asyncio.Task[Any] | None] = set()

    async def turn(self, user: str) -> None:
        """Wait for a turn of the current task, unless it has one. Raises `EvaluationBusy` where too many wait."""
        task = asyncio.current_task()
        if task in self._growing:
            return
        if not self._turns.free:
            if place_held.get() is not None and not self.has_room_for(user):
                raise EvaluationBusy("too many fan-outs wait for their turn")
            give_place_back()
        await self._turns.take(user)
        self._growing.add(task)

    def has_room_for(self, user: str) -> bool:
        """Return whether one more fan-out of this user's may wait for its turn."""
        return self._turns.waiting(user) < MOST_WAITING

    def over(self) -> None:
        """End the turn of the current task, if it has one."""
        task = asyncio.current_task()
        if task in self._growing:
            self._growing.remove(task)
            self._turns.give_back()

    def waits(self) -> None:
        """Hear that the current task waits for something that may take long: it needs neither turn nor place."""
        self.over()
        give_place_back()


def give_place_back() -> None:
    """Let others have the place that the current task was given."""
    place = place_held.get()
    if place is not None and not place.done():
        place.set_result(None)
