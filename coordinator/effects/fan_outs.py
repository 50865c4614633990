"""Lets few fan-outs grow at a time, users in turn, so that others' writes need not wait behind those of hundreds.

What waits for its turn holds no place of a handler: the message is settled, and others' messages are handled.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextvars import ContextVar
from typing import Any

from coordinator.effects.evaluations import EvaluationBusy
from shared.supervision import waiting

GROWING_AT_ONCE = 4
"""Fan-outs that insert a batch of children at a time."""

MOST_WAITING = 100
"""Fan-outs of handlers that wait for a turn; what is beyond is due work."""


handlers_place: ContextVar[asyncio.Future[None] | None] = ContextVar("handlers_place", default=None)
"""Done once whoever follows for a handler need not keep its place any more."""


_Waiting = tuple[asyncio.Task[Any] | None, asyncio.Future[None]]


class FanOuts:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._growing: set[asyncio.Task[Any] | None] = set()
        self._lines: OrderedDict[str, deque[_Waiting]] = OrderedDict()

    async def turn(self, user: str) -> None:
        """Wait for a turn of the current task, unless it has one. Raises `EvaluationBusy` where a handler's has to be
        put off."""
        task = asyncio.current_task()
        if task in self._growing:
            return
        if len(self._growing) < GROWING_AT_ONCE:
            self._growing.add(task)
            return
        if handlers_place.get() is not None and sum(map(len, self._lines.values())) >= MOST_WAITING:
            raise EvaluationBusy("too many fan-outs wait for their turn")
        give_place_back()
        await self._wait(user, task)

    async def _wait(self, user: str, task: asyncio.Task[Any] | None) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(user, deque()).append((task, turn))
        try:
            with waiting():
                await turn
        except asyncio.CancelledError:
            self.over()
            raise

    def over(self) -> None:
        """End the turn of the current task, if it has one."""
        task = asyncio.current_task()
        if task not in self._growing:
            return
        self._growing.remove(task)
        while self._lines:
            user, line = self._lines.popitem(last=False)
            following, turn = line.popleft()
            if line:
                self._lines[user] = line
            if not turn.done():  # it was cancelled otherwise
                self._growing.add(following)
                turn.set_result(None)
                return

    def waits(self) -> None:
        """Hear that the current task waits for something that may take long: it needs neither turn nor place."""
        self.over()
        give_place_back()


def give_place_back() -> None:
    """Let the handler that waits for the current task go on."""
    waits = handlers_place.get()
    if waits is not None and not waits.done():
        waits.set_result(None)
