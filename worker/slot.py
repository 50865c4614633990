"""A slot: takes a delivery, claims the task, runs it, reports the result, and takes the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog

from shared.broker.deliveries import Tries
from shared.broker.port import LARGEST_MESSAGE, Delivery, Slot
from shared.errors import UnknownKind, Unreadable
from shared.ids import new_id
from shared.model.documents import RunUsage
from shared.model.messages import (
    Claim,
    Granted,
    HandedBack,
    MessageCodec,
    Refused,
    RunEnded,
    TaskMessage,
)
from shared.model.states import RunRole
from shared.redaction import is_heavy, prepare_redaction
from shared.supervision import Backoff, beside, done_first, end_tasks, start_task, waiting
from shared.telemetry import cut_in_the_middle, span
from shared.threads import in_thread
from worker.context import RunEntry, RunSink, WorkerContext
from worker.log_shipper import LogShipper
from worker.runtime.port import Assignment, Outcome, Run, is_hosts

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
        if is_heavy(message.secrets):
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


# --- a granted run ----------------------------------------------------------------------------------------------------

LOG_TIMEOUT = 10.0
"""Seconds to send the rest of a log of which nothing will be reported."""

GIVEN_UP_WITHIN = 10.0
"""Seconds that the preparation of a run that was stopped has to end before that is reported: the engine may hang."""

LONGEST_RUN_ERROR = 64 * 1024
"""Bytes of an error that are told: an engine or a registry may have answered with megabytes."""

DRAINED = "the worker is stopping"


class GrantedRun:
    """One run that this worker was granted."""

    def __init__(
        self, context: WorkerContext, delivery: Delivery, entry: RunEntry, shipper: LogShipper
    ) -> None:
        self._context = context
        self._delivery = delivery
        self._entry = entry
        self._shipper = shipper
        self._removal: asyncio.Task[None] | None = None

    async def carry_out(self, preparing: asyncio.Task[Run]) -> asyncio.Task[None] | None:
        """Run to the end and report it; return the removal of what was made for it, which goes on."""
        started = time.monotonic()
        run: Run | None = None
        try:
            try:
                run = await self._prepared(preparing)
                self._context.meters.prepared(time.monotonic() - started)
                outcome = await self._outcome(run) if run is not None else None
            except Exception as error:
                log.exception(
                    "a run failed because of an error in this worker", task=self._entry.task_id
                )
                outcome = failed(error, prepared=run is not None)
            await self._report(outcome, time.monotonic() - started)
        finally:
            if run is not None:
                self._removal = self._context.background.start(
                    remove_run(run), f"remove {self._entry.task_id}"
                )
        return self._removal

    async def _prepared(self, preparing: asyncio.Task[Run]) -> Run | None:
        """Wait until the run is prepared; None where it was stopped meanwhile."""
        if await done_first(preparing, self._entry.stop_asked.wait()):
            return preparing.result()
        self._removal = self._context.background.start(
            give_up_preparing(preparing), f"give up {self._entry.task_id}"
        )
        with waiting():
            await asyncio.wait({self._removal}, timeout=GIVEN_UP_WITHIN)
        return None

    async def _outcome(self, run: Run) -> Outcome | None:
        """Run to the end; None where it was stopped before that."""
        if self._entry.stopped is not None:
            return None
        async with beside(_traced(self._entry, run), f"run {self._entry.task_id}") as running:
            if await done_first(running, self._entry.stop_asked.wait()):
                return running.result()
            with waiting():
                await run.stop(self._entry.stopped or "")
                await running
            return None

    async def _report(self, outcome: Outcome | None, seconds: float) -> None:
        """Tell the end of a run; what was stopped because it no longer counts has only its log told."""
        self._context.meters.ended(outcome, seconds)
        if outcome is None and self._entry.stopped != DRAINED:
            await self._end_log()
            await self._delivery.ack()
            return
        if outcome is not None and outcome.error is not None:
            said = self._shipper.redacted(outcome.error)
            short = cut_in_the_middle(said, LONGEST_RUN_ERROR)
            outcome = msgspec.structs.replace(outcome, error=short)
        if outcome is None or outcome.lost:
            if outcome is not None and outcome.unprepared:
                self._context.host_failed(outcome.error or "a run could not be prepared")
            if outcome is not None:
                log.warning("a run was lost", task=self._entry.task_id, reason=outcome.error)
            await self._end_log()
            end: RunEnded | HandedBack = handed_back(self._entry, self._context.node_id, outcome)
        else:
            log_end = await self._log_end()
            end = run_ended(self._entry, self._context.node_id, outcome, log_end, seconds)
            end = sendable(end, self._context.codec)
        await self._context.keep_end(end)
        self._entry.ended(end, self._context.beat_number())
        await self._context.sender.end(end)
        await self._delivery.ack()

    async def _log_end(self) -> tuple[int, str | None]:
        """Return how the log ends. A disk that does not take the rest of it costs the log, not the run."""
        try:
            return await self._shipper.end()
        except OSError as error:
            log.warning("the rest of a log is lost", task=self._entry.task_id, reason=str(error))
            return await self._shipper.drop(), None

    async def _end_log(self) -> None:
        """Send the rest of a log that no end of a run goes with, if that can be done soon."""
        try:
            async with asyncio.timeout(LOG_TIMEOUT):
                await self._shipper.end_by_itself()
        except (TimeoutError, OSError):
            await self._shipper.drop()


def failed(error: Exception, *, prepared: bool) -> Outcome:
    """Return the end of a run that this worker could not make ready, or could not go on with."""
    said = f"{type(error).__name__}: {error}"
    if prepared:
        return Outcome(lost=True, error=said)
    if is_hosts(error):
        return Outcome(lost=True, unprepared=True, error=said)
    return Outcome(error=f"the run could not be prepared: {said}")


async def _traced(entry: RunEntry, run: Run) -> Outcome:
    attributes = {"haulier.job_id": entry.job_id, "haulier.task_id": entry.task_id}
    with span("run task", attributes, parent=entry.trace, own=entry.run_trace) as here:
        outcome = await run.run()
        if outcome.error is not None:
            here.fail("the run was lost" if outcome.lost else "the task failed")
        return outcome


async def give_up_preparing(preparing: asyncio.Task[Run]) -> None:
    """End the preparation of a run that will not be, and remove what it made."""
    with waiting():
        await end_tasks(preparing)
        if not preparing.cancelled() and preparing.exception() is None:
            await preparing.result().remove()


async def remove_run(run: Run) -> None:
    """Remove what was made for a run. What goes wrong with that is no concern of the next run's."""
    try:
        await run.remove()
    except Exception:
        log.exception("a run could not be removed and is left to the sweep")


def handed_back(entry: RunEntry, node_id: str, outcome: Outcome | None) -> HandedBack:
    """Return what hands a run back: at no cost, or as lost where its container vanished."""
    reason = entry.stopped or (outcome.error if outcome is not None else None) or "lost"
    return HandedBack(
        task_id=entry.task_id,
        job_id=entry.job_id,
        run=entry.run,
        nonce=entry.nonce,
        node_id=node_id,
        reason=reason,
        vanished=outcome is not None and outcome.lost,
    )


def run_ended(
    entry: RunEntry, node_id: str, outcome: Outcome, log: tuple[int, str | None], seconds: float
) -> RunEnded:
    """Return the end of a run; `log` gives the number of its log's parts and the last one's contents."""
    parts, last = log
    return RunEnded(
        task_id=entry.task_id,
        job_id=entry.job_id,
        run=entry.run,
        nonce=entry.nonce,
        node_id=node_id,
        ok=outcome.error is None,
        result=outcome.result,
        error=outcome.error,
        exit_code=outcome.exit_code,
        usage=outcome.usage or RunUsage(wall_seconds=seconds, sampled=True),
        log_parts=parts,
        last_part=last,
    )


def sendable(end: RunEnded, codec: MessageCodec) -> RunEnded:
    """Return an end that a message can hold. A result may grow sixfold in one (control characters), and by a third
    where it is encrypted: the task of one that does not fit fails, and says so."""
    texts = (end.result, end.error, end.last_part)
    if sum(len(text) for text in texts if text) < LARGEST_MESSAGE // 10:
        return end
    size = len(codec.encode(end))
    if size <= LARGEST_MESSAGE:
        return end
    error = (
        f"the output can't be sent: in a message it takes {size} bytes, and at most {LARGEST_MESSAGE} go "
        "(a control character takes six)"
    )
    return msgspec.structs.replace(end, ok=False, result=None, error=error)
