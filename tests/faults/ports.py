"""The store and the broker with bad luck: each write and each message may fail, come late, come twice, or be the last
thing that a process does."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

from shared.broker.port import Broker
from shared.errors import BrokerUnavailable, StoreUnavailable
from shared.model.queues import TRANSIENT_QUEUES

T = TypeVar("T")


class Died(Exception):
    """The process is gone in the middle of what it did."""


class Mishap(enum.Enum):
    """What may go wrong with a step."""

    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"
    FAIL_BEFORE = "fail before"
    """It is not done, and fails."""
    FAIL_AFTER = "fail after"
    """It is done, and seems to have failed."""
    TWICE = "twice"
    """A message comes twice."""
    LATE = "late"
    """A message comes after the next ones."""
    LOST = "lost"
    """A message that may be lost, is."""


class Luck:
    """Counts the steps of one process (its writes and its messages) and says what goes wrong with which."""

    def __init__(
        self, decide: Callable[[int, str], Mishap | None] = lambda _n, _name: None
    ) -> None:
        self.decide = decide
        self.steps: list[str] = []
        self.dead = False

    def next(self, name: str, possible: Collection[Mishap]) -> Mishap | None:
        """Return what goes wrong with the next step, where that is `possible`."""
        self.check()
        self.steps.append(name)
        mishap = self.decide(len(self.steps), name)
        return mishap if mishap in possible else None

    def check(self) -> None:
        """Raise `Died` where the process is dead already."""
        if self.dead:
            raise Died

    def die(self) -> None:
        self.dead = True
        raise Died


class OneMishap(Luck):
    """The luck to which one mishap comes: at the `number`th of the steps to which it can happen."""

    def __init__(self, mishap: Mishap, number: int) -> None:
        super().__init__()
        self.struck = ""
        """The step that went wrong, once one has."""
        self._mishap = mishap
        self._left = number

    def next(self, name: str, possible: Collection[Mishap]) -> Mishap | None:
        """Return what goes wrong with the next step."""
        super().next(name, possible)
        self._left -= self._mishap in possible
        if self._left or self.struck:
            return None
        self.struck = name
        return self._mishap


AROUND = frozenset({Mishap.DIE_BEFORE, Mishap.DIE_AFTER, Mishap.FAIL_BEFORE, Mishap.FAIL_AFTER})
"""What can go wrong with any step."""

WRITES = frozenset(
    {
        "insert", "insert_many", "change", "change_many", "change_first", "delete", "append_log",
    }
)  # fmt: skip


class FaultyStore:
    """A store whose writes have bad luck."""

    def __init__(self, inner: Any, luck: Luck) -> None:
        self._inner = inner
        self.luck = luck

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name in WRITES:
            return self._unlucky(name, method)
        if name in ("now", "start", "close"):
            return method
        return self._read(method)

    def _read(self, method: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        async def read(*args: Any, **kwargs: Any) -> T:
            self.luck.check()
            return await method(*args, **kwargs)

        return read

    def _unlucky(
        self, name: str, method: Callable[..., Awaitable[T]]
    ) -> Callable[..., Awaitable[T]]:
        async def write(*args: Any, **kwargs: Any) -> T:
            mishap = self.luck.next(name, AROUND)
            if mishap is Mishap.DIE_BEFORE:
                self.luck.die()
            if mishap is Mishap.FAIL_BEFORE:
                raise StoreUnavailable("bad luck before the write")
            answer = await method(*args, **kwargs)
            if mishap is Mishap.DIE_AFTER:
                self.luck.die()
            if mishap is Mishap.FAIL_AFTER:
                raise StoreUnavailable("bad luck after the write")
            return answer

        return write


class FaultyBroker:
    """A broker whose messages have bad luck."""

    def __init__(self, inner: Broker, luck: Luck) -> None:
        self._inner = inner
        self.luck = luck
        self._late: list[Callable[[], Awaitable[None]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        priority: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        mishap = self.luck.next(f"publish {queue}", mishaps_of(queue))
        if mishap is Mishap.DIE_BEFORE:
            self.luck.die()
        if mishap is Mishap.FAIL_BEFORE:
            raise BrokerUnavailable("bad luck before the message")
        await self._send(mishap, queue, body, priority, headers)
        if mishap is Mishap.DIE_AFTER:
            self.luck.die()
        if mishap is Mishap.FAIL_AFTER:
            raise BrokerUnavailable("bad luck after the message")

    async def _send(
        self,
        mishap: Mishap | None,
        queue: str,
        body: bytes,
        priority: int,
        headers: Mapping[str, str] | None,
    ) -> None:
        if mishap is Mishap.LOST:
            return
        send = partial(
            self._inner.publish, queue, body, priority=priority, headers=dict(headers or {})
        )
        if mishap is Mishap.LATE:
            self._late.append(send)
            return
        await send()
        if mishap is Mishap.TWICE:
            await send()
        late, self._late = self._late, []
        for each in late:
            await each()


def mishaps_of(queue: str) -> frozenset[Mishap]:
    """What can go wrong with a message to a queue."""
    return frozenset(Mishap) if may_be_lost(queue) else frozenset(Mishap) - {Mishap.LOST}


def may_be_lost(queue: str) -> bool:
    """Whether messages of a queue may be lost: those that others say again."""
    return queue in TRANSIENT_QUEUES or queue.startswith("x-")
