"""The store and the broker with bad luck: each write and each message may fail, come late, come twice, or be the last
thing that a process does."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
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

    def next(self, name: str) -> Mishap | None:
        """Return what goes wrong with the next step."""
        self.check()
        self.steps.append(name)
        return self.decide(len(self.steps), name)

    def check(self) -> None:
        """Raise `Died` where the process is dead already."""
        if self.dead:
            raise Died

    def die(self) -> None:
        self.dead = True
        raise Died


def at(number: int, mishap: Mishap) -> Callable[[int, str], Mishap | None]:
    """Return what decides that only step `number` goes wrong."""
    return lambda n, _: mishap if n == number else None


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
            mishap = self.luck.next(name)
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
        mishap = self.luck.next(f"publish {queue}")
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
        if mishap is Mishap.LOST and may_be_lost(queue):
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


def may_be_lost(queue: str) -> bool:
    """Whether messages of a queue may be lost: those that others say again."""
    return queue in TRANSIENT_QUEUES or queue.startswith("x-")
