"""Runs a granted task and reports its result."""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from shared.broker.port import LARGEST_MESSAGE, Delivery
from shared.model.documents import RunUsage
from shared.model.messages import HandedBack, MessageCodec, RunEnded
from shared.supervision import beside, done_first, end_tasks, waiting
from shared.telemetry import cut_in_the_middle, span
from worker.context import RunEntry, WorkerContext
from worker.log_shipper import LogShipper
from worker.runtime.port import Outcome, Run, is_hosts

log = structlog.get_logger(__name__)

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
