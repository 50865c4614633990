"""Turns: who works, where only few can at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TooManyWaiting(Exception):
    """So many of one wait already that the one that has waited longest is refused."""


class Turns:
    """Lets few work at a time, `at_once`: each user or address in turn, and of one the newest first, `waiting` at most.

    So a flood delays only whom it comes from, and there the latest least."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._most = waiting
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, whose: str) -> AsyncIterator[None]:
        """Wait for a turn. `TooManyWaiting` where newer ones of the same took its place."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(whose)
        try:
            yield
        finally:
            self._give_back()

    async def _wait(self, whose: str) -> None:
        line = self._lines.setdefault(whose, deque())
        if len(line) >= self._most and not (oldest := line.popleft()).done():
            oldest.set_exception(TooManyWaiting())
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(whose, turn)
            raise

    def _leave(self, whose: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(whose, deque())
        if turn in line:
            line.remove(turn)
            if not line:
                del self._lines[whose]
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self._give_back()

    def _give_back(self) -> None:
        while self._lines:
            whose, line = self._lines.popitem(last=False)
            turn = line.pop()
            if line:
                self._lines[whose] = line
            if not turn.done():  # a caller that was cancelled just now has yet to leave
                turn.set_result(None)
                return
        self._free += 1
