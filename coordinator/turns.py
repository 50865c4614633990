"""Turns: who works, where only few can at a time; and reads of the datastore that requests take turns at.

SQLite's readers and the driver of MongoDB are threads, which all of a process's reads share. Requests may be many and
read much; what the engine reads is short, and everybody's jobs wait for it: so slow requests leave it its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar, cast

from coordinator.store.port import Store
from shared.errors import StoreUnavailable
from shared.model.documents import TokenDocument, UserDocument
from shared.supervision import Tasks, start_task, waiting


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


# --- reads of requests ------------------------------------------------------------------------------------------------

_T = TypeVar("_T")

READS_OF_REQUESTS: Final = 4
"""Reads that requests have under way at once: SQLite has six readers, MongoDB's driver five threads for each
processor."""
WAITING_READS: Final = 256
"""Reads of one user that wait."""
TURN_WITHIN = 8.0
"""Seconds that a request waits until it may read."""
_READS: Final = frozenset(
    {"get_many", "find", "count", "group_count", "search_jobs", "tag_counts", "log_page", "vars"}
)
"""What may take long. What has an id is found at once."""
_OF_CALLERS: Final = frozenset({UserDocument, TokenDocument})
"""What is read of whoever asks, before anything else: it waits for nobody's searches."""


def of_requests(store: Store, whose: Callable[[], str]) -> Store:
    """Return `store` for requests: few read at a time, users in turn; `whose` says for which user a read is. It raises
    `StoreUnavailable` where its turn does not come; one that nobody waits for any more counts until it is over."""
    return cast("Store", _Shared(store, whose))


class _Shared:
    def __init__(self, store: Store, whose: Callable[[], str]) -> None:
        self._store = store
        self._whose = whose
        self._turns = Turns(READS_OF_REQUESTS, WAITING_READS)
        self._left = Tasks()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        return self._in_turn(call) if name in _READS else call

    def _in_turn(self, call: Callable[..., Awaitable[_T]]) -> Callable[..., Awaitable[_T]]:
        async def read(*args: Any, **more: Any) -> _T:
            if _is_short(*args):
                return await call(*args, **more)
            turn = await self._turn()
            under_way = start_task(_done(call(*args, **more), turn), "read for a request")
            try:
                return await asyncio.shield(under_way)
            except asyncio.CancelledError:
                self._left.adopt(under_way)
                raise

        return read

    async def _turn(self) -> AsyncExitStack:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(TURN_WITHIN):
                    await stack.enter_async_context(self._turns.turn(self._whose()))
            except (TimeoutError, TooManyWaiting):
                raise StoreUnavailable("too many other requests are reading") from None
            return stack.pop_all()


def _is_short(kind: Any = None, where: Any = None, *_: Any) -> bool:
    """Whether a read is of whoever asks, or finds one by its id."""
    return kind in _OF_CALLERS or (isinstance(where, Mapping) and isinstance(where.get("id"), str))


async def _done(read: Awaitable[_T], turn: AsyncExitStack) -> _T:
    async with turn:
        return await read
