"""What is to go on for ever is taken up again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from shared.broker.rabbitmq.errors import Interrupted
from shared.errors import BrokerMisconfigured, BrokerUnavailable

log = logging.getLogger(__name__)

Attempt = Callable[[Callable[[], None]], Awaitable[None]]
"""Takes it up, calls its argument once it is had, and returns or raises when it has ended."""


class Upkeep:
    """Repeats `attempt`, with `delays` between those that follow one another, until it is
    stopped."""

    def __init__(self, name: str, attempt: Attempt, delays: Callable[[], Iterator[float]]) -> None:
        self._name = name
        self._attempt = attempt
        self._delays = delays
        self._waits = delays()
        self._first: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; return once it is had for the first time. Raises `BrokerMisconfigured`, and
        `BrokerUnavailable` when the connection is closed for good."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=self._name)
        try:
            await asyncio.shield(self._first)
        except BaseException:
            self._first.cancel()
            await self.stop()
            raise

    async def stop(self) -> None:
        """Attempt no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._attempt(self._had)
            except (Interrupted, TimeoutError) as error:
                log.info("%s is taken up again: %s", self._name, str(error) or "no answer")
            except BrokerMisconfigured as error:
                if self._failed(error):
                    return
                log.warning("%s can't be taken up: %s", self._name, error)
            except BrokerUnavailable as closed:
                self._failed(closed)
                return
            except Exception:
                # Whatever it is, a queue that nobody takes from is worse.
                log.exception("%s failed and is taken up again", self._name)
            await asyncio.sleep(next(self._waits))

    def _had(self) -> None:
        self._waits = self._delays()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _failed(self, error: Exception) -> bool:
        """Tell who waits in `start`; False where nobody does."""
        if self._first is None or self._first.done():
            return False
        self._first.set_exception(error)
        return True
