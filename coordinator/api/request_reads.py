"""The share of the datastore's threads that requests have, so that slow ones leave the engine its own.

SQLite's readers and the driver of MongoDB are threads, which all of a process's reads share. Requests may be many and
read much; what the engine reads is short, and everybody's jobs wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar, cast

from coordinator.api.context import caller
from coordinator.store.port import Store
from coordinator.turns import TooManyWaiting, Turns
from shared.errors import StoreUnavailable
from shared.model.documents import TokenDocument, UserDocument
from shared.supervision import Tasks, start_task

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


def of_requests(store: Store) -> Store:
    """Return `store` for requests: few read at a time, users in turn. A read raises `StoreUnavailable` where its turn
    does not come; one that nobody waits for any more counts until it is over."""
    return cast("Store", _Shared(store))


class _Shared:
    def __init__(self, store: Store) -> None:
        self._store = store
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
                    await stack.enter_async_context(self._turns.turn(caller().actor.id))
            except (TimeoutError, TooManyWaiting):
                raise StoreUnavailable("too many other requests are reading") from None
            return stack.pop_all()


def _is_short(kind: Any = None, where: Any = None, *_: Any) -> bool:
    """Whether a read is of whoever asks, or finds one by its id."""
    return kind in _OF_CALLERS or (isinstance(where, Mapping) and isinstance(where.get("id"), str))


async def _done(read: Awaitable[_T], turn: AsyncExitStack) -> _T:
    async with turn:
        return await read
