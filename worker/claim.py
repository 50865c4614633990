"""Claims tasks: asks the coordinators for permission to run one (engine spec, The run of a task)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import structlog

from shared.backoff import Backoff
from shared.broker.port import Delivery
from shared.model.messages import Claim, Granted, Refused
from shared.supervision import beside, waiting
from worker.context import WorkerContext
from worker.granted_run import handed_back
from worker.run_registry import RunEntry

log = structlog.get_logger(__name__)

_FIRST_ASK, _LONGEST_ASK = 1.0, 5.0
"""Seconds after which an unanswered claim is asked again; the delay grows by half each time."""

GRANT_WITHIN = 10.0
"""Seconds after the last ask within which a grant counts."""

BEAT_FIRST_DELAY = 0.05


class Claimant:
    """Claims the task of one delivery."""

    def __init__(self, context: WorkerContext, delivery: Delivery, entry: RunEntry) -> None:
        self._context = context
        self._delivery = delivery
        self._entry = entry

    async def ask(self, run: int) -> Granted | None:
        """Ask until there is an answer. None: refused, or stopped meanwhile (the delivery is settled), or the channel
        was lost."""
        claim = Claim(
            task_id=self._entry.task_id,
            job_id=self._entry.job_id,
            nonce=self._entry.nonce,
            node_id=self._context.node_id,
            beat=self._entry.beat,
            run=run,
        )
        backoff = Backoff(_FIRST_ASK, _LONGEST_ASK, factor=1.5)
        async with (
            beside(self._delivery.wait_lost(), "delivery lost") as lost,
            beside(self._entry.stop_asked.wait(), "stop asked") as stopped,
        ):
            while True:
                asked_at = time.monotonic()
                await self._context.sender.claim(claim)
                answer, asked_again = await self._answer((lost, stopped), backoff.next())
                if isinstance(answer, Granted):
                    if time.monotonic() - asked_at <= GRANT_WITHIN:
                        return answer
                    await self._too_late(answer)
                    return None
                if isinstance(answer, Refused):
                    log.info("a claim was refused", task=self._entry.task_id, reason=answer.reason)
                    await self._delivery.ack()
                    return None
                if self._is_over():
                    await self._delivery.requeue()
                    return None
                if asked_again:
                    backoff.reset()

    def _is_over(self) -> bool:
        """Return whether nobody waits for an answer any more. A grant on its way is handed back when it comes."""
        return self._delivery.lost or self._entry.stopped is not None

    async def _too_late(self, grant: Granted) -> None:
        """Hand a grant back that came too late: this process slept meanwhile."""
        self._entry.granted(grant.run)
        await self._context.sender.end(handed_back(self._entry, self._context.node_id, None))
        await self._delivery.ack()

    async def _answer(
        self, ending: Iterable[asyncio.Task[Any]], delay: float
    ) -> tuple[Granted | Refused | None, bool]:
        """Wait for an answer, for what ends the asking, or for the time to ask again."""
        async with beside(self._entry.next_answer(), "answer to a claim") as answering:
            with waiting():
                await asyncio.wait(
                    {answering, *ending}, timeout=delay, return_when=asyncio.FIRST_COMPLETED
                )
            if not answering.done():
                return None, False
            answer = answering.result()
        if answer is None:
            self._context.beat_now()
            await asyncio.sleep(BEAT_FIRST_DELAY)
        return answer, answer is None
