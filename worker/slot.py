"""A slot: takes a delivery, claims the task, runs it, reports the result, and takes the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import structlog

from shared.broker.deliveries import Tries
from shared.broker.port import Delivery, Slot
from shared.errors import UnknownKind, Unreadable
from shared.ids import new_id
from shared.model.messages import Claim, Granted, Refused, TaskMessage
from shared.model.states import RunRole
from shared.redaction import HEAVY, prepare_redaction
from shared.supervision import Backoff, beside, done_first, start_task, waiting
from shared.threads import in_thread
from worker.context import RunEntry, RunSink, WorkerContext
from worker.granted_run import GrantedRun, give_up_preparing, handed_back
from worker.log_shipper import LogShipper
from worker.runtime.port import Assignment, Run

log = structlog.get_logger(__name__)


FAILED_DELAY = 1.0
"""Seconds before a delivery on which this worker itself failed goes back."""

LAST_GONE_WITHIN = 5.0
"""Seconds that a task waits for the removal of what the slot's last one left; then it runs beside that."""


class SlotWorker:
    """Runs one slot: at most one task at a time, even if its channel is lost."""

    def __init__(self, context: WorkerContext, slot: Slot, number: int) -> None:
        self._context = context
        self._slot = slot
        self._number = number
        self._paused = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._stopping = False
        self.delivery: Delivery | None = None
        self.task_id: str | None = None
        self._removals: set[asyncio.Task[None]] = set()
        self._tries = Tries()

    def pause(self) -> None:
        """Take nothing new; what runs goes on."""
        self._paused.set()
        if not self._stopping:
            self._resumed.clear()

    def resume(self) -> None:
        """Take tasks again."""
        self._paused.clear()
        self._resumed.set()

    async def work(self) -> None:
        """Work until `finish` and the end of what runs then. Begun again after a failure, it first gives back what it
        held."""
        if self.delivery is not None:
            await self.delivery.requeue()
            self.delivery = self.task_id = None
        while not self._stopping:
            delivery = await self._next()
            if delivery is not None:
                await self._settle(delivery)
        await self._slot.pause()
        await self._all_removed()

    def finish(self) -> None:
        """Take nothing new, and end `work` once what runs has ended."""
        self._stopping = True
        self.pause()
        self._resumed.set()

    async def _next(self) -> Delivery | None:
        """Wait for a delivery; None when paused meanwhile. A paused slot consumes nothing: what the broker gave it
        when its last task was acknowledged goes back."""
        if self._paused.is_set() and not self._stopping:
            await self._slot.pause()
        with waiting():
            await self._resumed.wait()
        if self._stopping:
            return None
        async with beside(self._slot.take(), f"slot {self._number}: take") as taking:
            if await done_first(taking, self._paused.wait()) and not self._paused.is_set():
                return taking.result()
        await self._put_down(taking)
        return None

    async def _put_down(self, taking: asyncio.Task[Delivery]) -> None:
        if not taking.cancelled() and taking.exception() is None:
            await taking.result().requeue()
        await self._slot.pause()

    # --- one delivery ---------------------------------------------------------------------------------------------

    async def _settle(self, delivery: Delivery) -> None:
        self.delivery = delivery  # until it is settled: what fails before is given back by `work`
        await self._settled(delivery)
        self.delivery = self.task_id = None

    async def _settled(self, delivery: Delivery) -> None:
        try:
            message = self._read(delivery.body)
        except UnknownKind as error:
            await self._tries.unknown(delivery, str(error))
            return
        except Unreadable as error:
            log.warning(
                "a message was moved to the queue dead", queue=delivery.queue, reason=str(error)
            )
            await delivery.bury(str(error))
            return
        self.task_id = message.task_id
        try:
            await self._handle(delivery, message)
        except Exception:
            log.exception("a task could not be handled", task=message.task_id)
            await asyncio.sleep(FAILED_DELAY)
            await delivery.requeue()

    def _read(self, body: bytes) -> TaskMessage:
        message = self._context.codec.decode(body)
        if not isinstance(message, TaskMessage):
            raise Unreadable(f"a {type(message).__name__} is not a task")
        return message

    async def _handle(self, delivery: Delivery, message: TaskMessage) -> None:
        entry = RunEntry(message.task_id, message.job_id, new_id(), self._context.beat_number())
        entry.trace = message.trace
        self._context.registry.add(entry)
        try:
            await self._claim_and_run(delivery, message, entry)
        finally:
            if entry.role != RunRole.ENDED:
                self._context.registry.forget(entry.nonce)

    async def _claim_and_run(
        self, delivery: Delivery, message: TaskMessage, entry: RunEntry
    ) -> None:
        if sum(map(len, message.secrets)) > HEAVY:
            await in_thread(prepare_redaction, message.secrets)
        shipper = LogShipper(
            self._context.sender,
            entry.task_id,
            entry.job_id,
            entry.nonce,
            message.secrets,
            self._context.spool,
            self._context.spool_limit,
            self._context.log_limit,
        )
        preparing = start_task(self._prepare(message, entry, shipper), f"prepare {entry.task_id}")
        try:
            granted = await Claimant(self._context, delivery, entry).ask(message.run)
        except BaseException:
            await self._give_up(preparing, shipper)
            raise
        if granted is None:
            await self._give_up(preparing, shipper)
            return
        entry.granted(granted.run)
        self._context.on_granted(entry)
        shipper.begin(granted.run)
        run = GrantedRun(self._context, delivery, entry, shipper)
        removal = await run.carry_out(preparing)
        if removal is not None:
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

    async def _prepare(self, message: TaskMessage, entry: RunEntry, shipper: LogShipper) -> Run:
        await self._all_removed(LAST_GONE_WITHIN)
        assignment = Assignment(
            task_id=entry.task_id,
            job_id=entry.job_id,
            node_id=self._context.node_id,
            nonce=entry.nonce,
            attempt=message.attempt,
            task=message.task,
            slot=self._number,
            trace=entry.run_trace,
        )
        return await self._context.runtime.prepare(
            assignment, RunSink(self._context, entry, shipper)
        )

    async def _all_removed(self, within: float | None = None) -> None:
        """Wait until what was made for the last runs is removed, at most so many seconds: it goes on by itself."""
        if self._removals:
            with waiting():
                await asyncio.wait({*self._removals}, timeout=within)

    async def _give_up(self, preparing: asyncio.Task[Run], shipper: LogShipper) -> None:
        """Forget a claim that came to nothing, and what was prepared for it."""
        await shipper.drop()
        await give_up_preparing(preparing)


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
