"""Lets few fan-outs grow at a time, users in turn, so that others' writes need not wait behind those of hundreds.

What waits for its turn holds no place of a handler: the message is settled, and others' messages are handled.
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
"""Fan-outs of handlers that wait for a turn; what is beyond is due work."""


handlers_place: ContextVar[asyncio.Future[None] | None] = ContextVar("handlers_place", default=None)
"""Done once whoever follows for a handler need not keep its place any more."""


class FanOuts:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._turns = Turns(GROWING_AT_ONCE)
        self._growing: set[asyncio.Task[Any] | None] = set()

    async def turn(self, user: str) -> None:
        """Wait for a turn of the current task, unless it has one. Raises `EvaluationBusy` where a handler's has to be
        put off."""
        task = asyncio.current_task()
        if task in self._growing:
            return
        if not self._turns.free:
            if handlers_place.get() is not None and len(self._turns) >= MOST_WAITING:
                raise EvaluationBusy("too many fan-outs wait for their turn")
            give_place_back()
        await self._turns.take(user)
        self._growing.add(task)

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
    """Let the handler that waits for the current task go on."""
    waits = handlers_place.get()
    if waits is not None and not waits.done():
        waits.set_result(None)
