"""One slot at work: take a delivery, claim it, run it, report its end, and take the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from shared.broker.port import Delivery, Slot
from shared.errors import Unreadable
from shared.ids import new_id
from shared.model.documents import Usage
from shared.model.messages import (
    Claim,
    Granted,
    HandedBack,
    Progressed,
    Refused,
    RunEnded,
    TaskMessage,
)
from shared.model.sealing import MessageCodec
from shared.tracing import span
from worker.log_shipper import LogShipper
from worker.post import Post
from worker.roster import ENDED, Entry, Roster
from worker.runtime.port import Assignment, Outcome, Run, Runtime

log = structlog.get_logger(__name__)

FIRST_ASK = 1.0
"""Seconds after which an unanswered claim is asked again; the delay grows by half each time."""

LONGEST_ASK = 5.0
GRANT_WITHIN = 10.0
"""Seconds after the last ask within which a grant counts."""

BEAT_FIRST_DELAY = 0.05
LOG_TIMEOUT = 10.0
"""Seconds to send the rest of a log of which nothing will be reported."""

FAILED_DELAY = 1.0
"""Seconds before a delivery on which this worker itself failed goes back."""

DRAINED = "the worker is stopping"


class Workshop(msgspec.Struct, frozen=True):
    """What all slots of a worker share."""

    node_id: str
    runtime: Runtime
    roster: Roster
    post: Post
    codec: MessageCodec
    folder: Path
    spool_limit: int
    beat_number: Callable[[], int]
    beat_now: Callable[[], None]


class RunSink:
    """Where the output of one run goes: its log shipper, and progress as it changes."""

    def __init__(self, shop: Workshop, entry: Entry, shipper: LogShipper) -> None:
        self._shop = shop
        self._entry = entry
        self._shipper = shipper

    async def write(self, data: bytes) -> None:
        """Take bytes of the log."""
        await self._shipper.write(data)

    async def progress(self, percent: float) -> None:
        """Tell a new value of progress."""
        entry = self._entry
        message = Progressed(
            task_id=entry.task_id,
            job_id=entry.job_id,
            run=entry.run,
            nonce=entry.nonce,
            progress=percent,
        )
        await self._shop.post.progress(message)


class SlotWorker:
    """Works one slot. At most one task at a time, whatever becomes of its channel."""

    def __init__(self, shop: Workshop, slot: Slot, number: int) -> None:
        self._shop = shop
        self._slot = slot
        self._number = number
        self._paused = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._stopping = False
        self.delivery: Delivery | None = None
        self.task_id: str | None = None
        self._removal: asyncio.Task[None] | None = None

    def pause(self) -> None:
        """Take nothing new; what runs goes on."""
        self._resumed.clear()
        self._paused.set()

    def resume(self) -> None:
        """Take tasks again."""
        self._paused.clear()
        self._resumed.set()

    async def work(self) -> None:
        """Work until `finish` and the end of what runs then."""
        while not self._stopping:
            delivery = await self._next()
            if delivery is not None:
                await self._settle(delivery)
        await self._last_removed()

    def finish(self) -> None:
        """Take nothing new, and end `work` once what runs has ended."""
        self._stopping = True
        self.pause()
        self._resumed.set()

    async def _next(self) -> Delivery | None:
        """Wait for a delivery; None when paused meanwhile."""
        await self._resumed.wait()
        if self._stopping:
            return None
        taking = asyncio.create_task(self._slot.take(), name=f"slot-{self._number}-take")
        pausing = asyncio.create_task(self._paused.wait(), name=f"slot-{self._number}-pause")
        try:
            await asyncio.wait({taking, pausing}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
        finally:
            pausing.cancel()
            if not taking.done():
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
        await self._put_down(taking)
        return None

    async def _put_down(self, taking: asyncio.Task[Delivery]) -> None:
        if not taking.cancelled() and taking.exception() is None:
            await taking.result().requeue()
        await self._slot.pause()

    # --- one delivery ---------------------------------------------------------------------------------------------

    async def _settle(self, delivery: Delivery) -> None:
        try:
            message = self._read(delivery.body)
        except Unreadable as error:
            log.warning("a message was buried", queue=delivery.queue, reason=str(error))
            await delivery.bury(str(error))
            return
        self.delivery, self.task_id = delivery, message.task_id
        try:
            await self._handle(delivery, message)
        except Exception:
            log.exception("a task could not be handled", task=message.task_id)
            await asyncio.sleep(FAILED_DELAY)
            await delivery.requeue()
        finally:
            self.delivery = self.task_id = None

    def _read(self, body: bytes) -> TaskMessage:
        message = self._shop.codec.decode(body)
        if not isinstance(message, TaskMessage):
            raise Unreadable(f"a {type(message).__name__} is not a task")
        return message

    async def _handle(self, delivery: Delivery, message: TaskMessage) -> None:
        entry = Entry(message.task_id, message.job_id, new_id(), self._shop.beat_number())
        self._shop.roster.add(entry)
        try:
            await self._claim_and_run(delivery, message, entry)
        finally:
            if entry.role != ENDED:
                self._shop.roster.forget(entry.nonce)

    async def _claim_and_run(self, delivery: Delivery, message: TaskMessage, entry: Entry) -> None:
        shipper = LogShipper(
            self._shop.post,
            entry.task_id,
            entry.job_id,
            entry.nonce,
            message.secrets,
            self._shop.folder,
            self._shop.spool_limit,
        )
        preparing = asyncio.create_task(
            self._prepare(message, entry, shipper), name=f"prepare-{entry.task_id}"
        )
        try:
            granted = await self._claim(delivery, message, entry)
        except BaseException:
            await self._give_up(preparing, shipper)
            raise
        if granted is None:
            await self._give_up(preparing, shipper)
            return
        entry.granted(granted.run)
        shipper.begin(granted.run)
        await self._run(delivery, entry, preparing, shipper)

    async def _prepare(self, message: TaskMessage, entry: Entry, shipper: LogShipper) -> Run:
        await self._last_removed()
        assignment = Assignment(
            task_id=entry.task_id,
            job_id=entry.job_id,
            node_id=self._shop.node_id,
            nonce=entry.nonce,
            attempt=message.attempt,
            task=message.task,
            slot=self._number,
        )
        return await self._shop.runtime.prepare(assignment, RunSink(self._shop, entry, shipper))

    async def _last_removed(self) -> None:
        """Wait until what was made for the last run is removed. Cancelling the wait does not cancel that."""
        if self._removal is not None:
            await asyncio.wait({self._removal})

    async def _give_up(self, preparing: asyncio.Task[Run], shipper: LogShipper) -> None:
        """Forget a claim that came to nothing, and what was prepared for it."""
        shipper.drop()
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        if not preparing.cancelled() and preparing.exception() is None:
            await preparing.result().remove()

    # --- the claim ------------------------------------------------------------------------------------------------

    async def _claim(
        self, delivery: Delivery, message: TaskMessage, entry: Entry
    ) -> Granted | None:
        """Ask until there is an answer. None: refused (the delivery is settled), or the channel was lost."""
        claim = Claim(
            task_id=entry.task_id,
            job_id=entry.job_id,
            nonce=entry.nonce,
            node_id=self._shop.node_id,
            beat=entry.beat,
            run=message.run,
        )
        delay = FIRST_ASK
        losing = asyncio.create_task(delivery.wait_lost(), name=f"lost-{entry.task_id}")
        try:
            while True:
                asked_at = time.monotonic()
                await self._shop.post.claim(claim)
                answer, asked_again = await self._answer(entry, losing, delay)
                if isinstance(answer, Granted):
                    if time.monotonic() - asked_at <= GRANT_WITHIN:
                        return answer
                    await self._too_late(delivery, entry, answer)
                    return None
                if isinstance(answer, Refused):
                    log.info("a delivery was refused", task=entry.task_id, reason=answer.reason)
                    await delivery.ack()
                    return None
                if delivery.lost:
                    return None
                delay = FIRST_ASK if asked_again else min(delay * 1.5, LONGEST_ASK)
        finally:
            losing.cancel()

    async def _too_late(self, delivery: Delivery, entry: Entry, grant: Granted) -> None:
        """Hand a grant back that came too late: this process slept meanwhile."""
        entry.granted(grant.run)
        await self._shop.post.end(self._handed_back(entry, None))
        await delivery.ack()

    async def _answer(
        self, entry: Entry, losing: asyncio.Task[None], delay: float
    ) -> tuple[Granted | Refused | None, bool]:
        """Wait for an answer, the loss of the channel, or the time to ask again."""
        answering = asyncio.create_task(entry.next_answer(), name=f"answer-{entry.task_id}")
        await asyncio.wait({answering, losing}, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
            return None, False
        answer = answering.result()
        if answer is None:
            self._shop.beat_now()
            await asyncio.sleep(BEAT_FIRST_DELAY)
        return answer, answer is None

    # --- the run --------------------------------------------------------------------------------------------------

    async def _run(
        self, delivery: Delivery, entry: Entry, preparing: asyncio.Task[Run], shipper: LogShipper
    ) -> None:
        started = time.monotonic()
        run: Run | None = None
        try:
            try:
                run = await self._prepared(entry, preparing)
                outcome = await self._outcome(entry, run) if run is not None else None
            except Exception as error:
                log.exception("a run failed by this worker's fault", task=entry.task_id)
                outcome = Outcome(lost=True, error=f"{type(error).__name__}: {error}")
            await self._report(delivery, entry, outcome, shipper, time.monotonic() - started)
        finally:
            if run is not None:
                self._removal = asyncio.create_task(remove(run), name=f"remove-{entry.task_id}")

    async def _prepared(self, entry: Entry, preparing: asyncio.Task[Run]) -> Run | None:
        """Wait until the run is prepared; None where it was stopped meanwhile."""
        stopping = asyncio.create_task(entry.stop_asked.wait(), name=f"stop-{entry.task_id}")
        await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if preparing.done():
            return preparing.result()
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        if not preparing.cancelled() and preparing.exception() is None:
            await preparing.result().remove()
        return None

    async def _outcome(self, entry: Entry, run: Run) -> Outcome | None:
        """Run to the end; None where it was stopped before that."""
        if entry.stopped is not None:
            return None
        running = asyncio.create_task(_traced(entry, run), name=f"run-{entry.task_id}")
        stopping = asyncio.create_task(entry.stop_asked.wait(), name=f"stop-{entry.task_id}")
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            await run.stop(entry.stopped or "")
            await running
            return None
        finally:
            stopping.cancel()

    async def _report(
        self,
        delivery: Delivery,
        entry: Entry,
        outcome: Outcome | None,
        shipper: LogShipper,
        seconds: float,
    ) -> None:
        """Tell the end of a run; what was stopped because it no longer counts has only its log told."""
        if outcome is None and entry.stopped != DRAINED:
            await self._after_stop(delivery, shipper)
            return
        if outcome is None or outcome.lost:
            await self._end_log(shipper)
            end: RunEnded | HandedBack = self._handed_back(entry, outcome)
        else:
            end = await self._end(entry, outcome, shipper, seconds)
        entry.ended(end)
        await self._shop.post.end(end)
        await delivery.ack()

    async def _after_stop(self, delivery: Delivery, shipper: LogShipper) -> None:
        await self._end_log(shipper)
        await delivery.ack()

    async def _end_log(self, shipper: LogShipper) -> None:
        """Send the rest of a log that no end of a run goes with, if that can be done soon."""
        try:
            async with asyncio.timeout(LOG_TIMEOUT):
                await shipper.end_by_itself()
        except (TimeoutError, OSError):
            shipper.drop()

    def _handed_back(self, entry: Entry, outcome: Outcome | None) -> HandedBack:
        vanished = outcome is not None and outcome.lost
        return HandedBack(
            task_id=entry.task_id,
            job_id=entry.job_id,
            run=entry.run,
            nonce=entry.nonce,
            node_id=self._shop.node_id,
            reason=entry.stopped or (outcome.error if outcome is not None else None) or "lost",
            vanished=vanished,
        )

    async def _end(
        self, entry: Entry, outcome: Outcome, shipper: LogShipper, seconds: float
    ) -> RunEnded:
        parts, last = await shipper.end()
        return RunEnded(
            task_id=entry.task_id,
            job_id=entry.job_id,
            run=entry.run,
            nonce=entry.nonce,
            node_id=self._shop.node_id,
            ok=outcome.error is None,
            result=outcome.result,
            error=outcome.error,
            exit_code=outcome.exit_code,
            usage=outcome.usage or Usage(wall_seconds=seconds, sampled=True),
            log_parts=parts,
            last_part=last,
        )


async def _traced(entry: Entry, run: Run) -> Outcome:
    attributes = {"haulier.job_id": entry.job_id, "haulier.task_id": entry.task_id}
    with span("run task", attributes) as here:
        outcome = await run.run()
        if outcome.error is not None:
            here.fail("the task failed")
        return outcome


async def remove(run: Run) -> None:
    """Remove what was made for a run. What goes wrong with that is no concern of the next run's."""
    try:
        await run.remove()
    except Exception:
        log.exception("a run could not be removed and is left to the sweep")
