"""The sweeper: finds unfinished work and completes it. It only repairs: in a quiet system it finds nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from coordinator.effects import FlowDriver
from coordinator.engine import leases, orphans, repairs
from shared.broker.port import Broker
from shared.errors import ApplicationError, BrokerUnavailable
from shared.model.documents import QueueDocument
from shared.supervision import Loop

log = structlog.get_logger(__name__)

QUIET_SWEEPS = 2
"""Looks in a row at which a queue must have had nothing ready for what is SCHEDULED in it to count as lost."""


class Sweeper:
    """Sweeps every few seconds."""

    def __init__(self, driver: FlowDriver, broker: Broker, interval: float) -> None:
        self._driver = driver
        self._broker = broker
        self._quiet: Counter[str] = Counter()
        self._rounds = repairs.Rounds()
        self._orphan_rounds = orphans.OrphanRounds()
        self._round = Loop("sweeper", self.sweep, every=interval)

    def start(self) -> None:
        """Start to sweep, in the background."""
        self._round.start()

    async def close(self) -> None:
        """Sweep no more, cutting a round short."""
        await self._round.close()

    async def sweep(self) -> None:
        """Go round once: those that need the broker come last. What one look fails at does not keep the others from
        theirs."""
        looks: tuple[Callable[[], Awaitable[None]], ...] = (
            self._orphans,
            self._leases,
            self._structure,
            self._unconfirmed,
            self._unheard,
            self._unused,
        )
        for look in looks:
            try:
                await look()
            except ApplicationError as error:
                log.info(
                    "a sweep waits for its next turn",
                    look=look.__name__,
                    reason=str(error),
                )
            except Exception:
                log.exception("a sweep failed", look=look.__name__)

    async def _orphans(self) -> None:
        """Cancel what is not to go on, before any of it is sent again."""
        await self._driver.handle(orphans.open_under_ended())
        await self._driver.handle(orphans.of_lower_restarts(self._orphan_rounds))
        await self._driver.handle(orphans.lost_subjobs(self._orphan_rounds))

    async def _unconfirmed(self) -> None:
        await self._driver.handle(repairs.unconfirmed())

    async def _unheard(self) -> None:
        waited = await self._driver.carry_out(repairs.waited_in(self._rounds))
        try:
            quiet = [queue for queue in waited if await self._is_quiet(queue)]
        except BrokerUnavailable:
            self._quiet.clear()
            return
        grants = await self._driver.carry_out(repairs.latest_grants(waited))
        await self._driver.handle(repairs.unheard(quiet, grants))

    async def _is_quiet(self, queue: str) -> bool:
        self._quiet[queue] = 0 if await self._broker.ready(queue) else self._quiet[queue] + 1
        return self._quiet[queue] >= QUIET_SWEEPS

    async def _unused(self) -> None:
        """Delete queues that no worker takes from and no task waits in: what is left in them are copies of what is
        over. A task that is sent there in the same moment is sent again."""
        for queue in await self._driver.carry_out(repairs.unused_queues()):
            if await self._broker.delete_queue(queue.id, unused=True):
                log.info("a queue was unused for long and is deleted", queue=queue.id)
            if await self._broker.ready(queue.id) is None:
                seen = {"id": queue.id, "used_at": queue.used_at}
                await self._driver.store.delete(QueueDocument, seen)

    async def _leases(self) -> None:
        await self._driver.handle(leases.expire_leases())
        await self._driver.handle(leases.runs_of_closed_epochs())

    async def _structure(self) -> None:
        await self._driver.handle(repairs.composites_with_nothing_open(self._rounds))
        await self._driver.handle(repairs.free_slots(self._rounds))
