"""Turns: who works, where only few can at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.supervision import waiting


class TooManyWaiting(Exception):
    """So many of one wait already that the one that has waited longest is refused."""


class Turns:
    """Lets few work at a time, `at_once`: each user or address in turn, so that a flood delays only whom it comes from.

    Of one, those go on in the order in which they came. Where `newest` is given, the newest goes first, and only so
    many wait: a flood delays its latest least."""

    def __init__(self, at_once: int, newest: int | None = None) -> None:
        self._free = at_once
        self._newest = newest
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def free(self) -> bool:
        """Whether nobody would have to wait now."""
        return self._free > 0

    def waiting(self, whose: str) -> int:
        """Return how many of one wait."""
        return len(self._lines.get(whose, ()))

    @asynccontextmanager
    async def turn(self, whose: str) -> AsyncIterator[None]:
        """Have a turn while the block runs. Raises as `take`."""
        await self.take(whose)
        try:
            yield
        finally:
            self.give_back()

    async def take(self, whose: str) -> None:
        """Wait for a turn, to `give_back`. `TooManyWaiting` where newer ones of the same took its place."""
        if self._free:
            self._free -= 1
            return
        line = self._lines.setdefault(whose, deque())
        if len(line) == self._newest and not (oldest := line.popleft()).done():
            oldest.set_exception(TooManyWaiting())
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            with waiting():
                await turn
        except asyncio.CancelledError:
            self._leave(whose, turn)
            raise

    def give_back(self) -> None:
        """Let the next one work."""
        while self._lines:
            whose, line = self._lines.popitem(last=False)
            turn = line.popleft() if self._newest is None else line.pop()
            if line:
                self._lines[whose] = line
            if not turn.done():  # a caller that was cancelled just now has yet to leave
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, whose: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(whose, deque())
        if turn in line:
            line.remove(turn)
            if not line:
                del self._lines[whose]
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self.give_back()
