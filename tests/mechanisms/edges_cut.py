"""The worker, the API, the intake, logs and timers: cut one by one."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from coordinator.api import middleware
from coordinator.commands import JobCommands
from coordinator.consumers import log_parts, queue_consumers
from coordinator.due.webhook_sender import WebhookSender
from coordinator.effects import FlowDriver
from coordinator.engine import task_runs
from shared.broker.deliveries import Tries
from shared.broker.port import Delivery
from shared.broker.rabbitmq.connection import RabbitConnection
from shared.broker.rabbitmq.publisher import PublishChannel
from shared.errors import BrokerUnavailable, StoreUnavailable
from shared.model.documents import Document, LogPartDocument
from shared.model.messages import Claim, Granted, Message
from shared.model.queries import Change
from shared.model.states import RunRole
from tests.mechanisms.cutting import idle, unlooked
from worker import process_folder, slot
from worker.context import RunRegistry
from worker.daemon import Daemon
from worker.log_shipper import LogShipper
from worker.runtime.port import Outcome, Run
from worker.runtime.stages import StagedRun
from worker.sender import Sender
from worker.slot import Claimant, GrantedRun

# --- the worker ----------------------------------------------------------------------------------------------------


def named_predecessors(patch: pytest.MonkeyPatch) -> None:
    """A worker does not say that the process before it is dead."""

    def nobody(self: process_folder.ProcessFolder) -> list[str]:
        del self
        return []

    patch.setattr(process_folder.ProcessFolder, "_record", nobody)


def patient_ends(patch: pytest.MonkeyPatch) -> None:
    """A run that ends while its worker can open nothing is lost."""

    async def once(self: StagedRun, step: Callable[[], Awaitable[Any]]) -> Any:
        del self
        return await step()

    patch.setattr(StagedRun, "_patiently", once)


def newer_kinds(patch: pytest.MonkeyPatch) -> None:
    """A message of a kind that only a newer version knows is buried by the first who sees it."""

    async def buried(self: Tries, delivery: Delivery, reason: str) -> bool:
        del self
        await delivery.bury(reason)
        return True

    patch.setattr(Tries, "unknown", buried)


def written_ends(patch: pytest.MonkeyPatch) -> None:
    """A worker tells the end of a run without having written it down."""

    def nothing(self: process_folder.ProcessFolder, end: object) -> None:
        del self, end

    patch.setattr(process_folder.ProcessFolder, "keep", nothing)


def claim(patch: pytest.MonkeyPatch) -> None:
    """A worker asks, and does not wait for the answer."""
    ask = Sender.claim

    async def granted(self: Claimant, run: int) -> Granted:
        entry = self._entry
        await ask(self._context.sender, _claim_of(self, run))
        return Granted(task_id=entry.task_id, nonce=entry.nonce, run=run + 1)

    patch.setattr(Claimant, "ask", granted)


def _claim_of(claimant: Claimant, run: int) -> Claim:
    entry = claimant._entry
    return Claim(
        task_id=entry.task_id,
        job_id=entry.job_id,
        nonce=entry.nonce,
        node_id=claimant._context.node_id,
        beat=entry.beat,
        run=run,
    )


def unwanted_grants(patch: pytest.MonkeyPatch) -> None:
    """A worker drops a grant that nobody waits for any more."""
    patch.setattr(Daemon, "_hand_back", lambda _self, _grant: None)


def kept_ends(patch: pytest.MonkeyPatch) -> None:
    """A worker forgets an end as soon as it was sent."""
    patch.setattr(slot, "RunRole", SimpleNamespace(ENDED="kept by nobody"))


def confirmed_ends(patch: pytest.MonkeyPatch) -> None:
    """A worker sends ends and log parts once, and does not wait until the broker has them."""

    async def once(self: Sender, queue: str, message: Message) -> None:
        try:
            await self._broker.publish(queue, self._codec.encode(message))
        except BrokerUnavailable:
            return

    patch.setattr(Sender, "_until_confirmed", once)


def vanished(patch: pytest.MonkeyPatch) -> None:
    """A run whose container vanished is told as one that failed."""
    report = GrantedRun._report

    async def failed(self: GrantedRun, outcome: Outcome | None, seconds: float) -> None:
        await report(self, outcome and msgspec.structs.replace(outcome, lost=False), seconds)

    patch.setattr(GrantedRun, "_report", failed)


def lost_channels(patch: pytest.MonkeyPatch) -> None:
    """A run is stopped when the channel that its delivery came on is lost."""
    outcome_of = GrantedRun._outcome

    async def outcome(self: GrantedRun, run: Run) -> Outcome | None:
        async def stop() -> None:
            await self._delivery.wait_lost()
            self._entry.stop("the channel was lost")

        stopping = asyncio.create_task(stop())
        try:
            return await outcome_of(self, run)
        finally:
            stopping.cancel()

    patch.setattr(GrantedRun, "_outcome", outcome)


def who_is_dead(patch: pytest.MonkeyPatch) -> None:
    """What other nodes left is removed without asking whether they are dead."""

    async def all_of(_self: Daemon, nodes: Collection[str]) -> Collection[str]:
        return nodes

    patch.setattr(Daemon, "_dead_of", all_of)


def drain_waits(patch: pytest.MonkeyPatch) -> None:
    """A draining worker does not wait until its ends are stored."""
    patch.setattr(RunRegistry, "wait_empty", idle)


def drain_hands_back(patch: pytest.MonkeyPatch) -> None:
    """A draining worker waits for what runs, past the grace time too."""
    stop_all = Daemon._stop_all

    def stop_claims(self: Daemon, *roles: RunRole) -> None:
        stop_all(self, *(role for role in roles if role != RunRole.RUNNING))

    patch.setattr(Daemon, "_stop_all", stop_claims)


# --- logs ----------------------------------------------------------------------------------------------------------


def part_ids(patch: pytest.MonkeyPatch) -> None:
    """A part of a log that comes again is another part."""
    numbers, part = itertools.count(1), task_runs.log_part

    def numbered(*args: Any) -> LogPartDocument:
        return msgspec.structs.replace(part(*args), id=f"part{next(numbers)}")

    patch.setattr(task_runs, "log_part", numbered)
    patch.setattr(log_parts, "log_part", numbered)


def parts_before_end(patch: pytest.MonkeyPatch) -> None:
    """An end does not wait until the earlier parts of the log are confirmed."""

    async def unfinished(self: LogShipper) -> None:
        self._ending = True
        self._more.set()

    patch.setattr(LogShipper, "_finish", unfinished)


# --- the coordinator's edges ---------------------------------------------------------------------------------------


class Hasty:
    """A store, or who writes to one, that says that it has what it is only about to write."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._writing: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def insert(self, document: Document) -> bool:
        return self._begin(self._inner.insert(document))

    async def insert_job(self, job: Document) -> bool:
        return self._begin(self._inner.insert_job(job))

    def _begin(self, write: Coroutine[Any, Any, bool]) -> bool:
        task = asyncio.create_task(self._end(write))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return True

    async def _end(self, write: Coroutine[Any, Any, bool]) -> None:
        try:
            await write
        except StoreUnavailable:
            return


def stored_first(patch: pytest.MonkeyPatch) -> None:
    """A submitted job is answered for before it is stored."""
    init = JobCommands.__init__

    def hasty(self: Any, *args: Any) -> None:
        init(self, *args)
        self._store = Hasty(self._store)
        self._driver = Hasty(self._driver)

    patch.setattr(JobCommands, "__init__", hasty)


def unavailable(patch: pytest.MonkeyPatch) -> None:
    """A datastore that is away is an accident like any other."""
    patch.delitem(middleware._STATUS, StoreUnavailable)


def stands_back(patch: pytest.MonkeyPatch) -> None:
    """A coordinator without a store goes on taking messages."""
    init = queue_consumers.QueueConsumers.__init__

    def untroubled(self: queue_consumers.QueueConsumers, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        patch.setattr(self._in_trouble, "set", lambda: None)

    patch.setattr(queue_consumers.QueueConsumers, "__init__", untroubled)


def buried(patch: pytest.MonkeyPatch) -> None:
    """A message that its handler fails on is tried for ever."""
    patch.setattr(queue_consumers, "HANDLER_TRIES", sys.maxsize)


def webhook_claims(patch: pytest.MonkeyPatch) -> None:
    """A delivery of a webhook is tried by whoever sees that it is due."""
    init = WebhookSender.__init__

    class Unclaimed:
        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def change(self, change: Change[Any]) -> Any:
            return await self._store.change(unlooked(change, "due_at", "attempts", "state"))

    def unclaiming(self: WebhookSender, *args: Any) -> None:
        init(self, *args)
        self._store = Unclaimed(self._store)

    patch.setattr(WebhookSender, "__init__", unclaiming)


def store_clock(patch: pytest.MonkeyPatch) -> None:
    """Deadlines are measured by the coordinator's own clock."""

    async def own(_self: FlowDriver, _effect: Any) -> int:
        return time.time_ns() // 1000

    patch.setattr(FlowDriver, "_now", own)


def rabbitmq_confirms(patch: pytest.MonkeyPatch) -> None:
    """What is published to RabbitMQ goes out on a channel without confirms."""
    init = PublishChannel.__init__

    def unconfirmed(
        self: PublishChannel, link: RabbitConnection, *, confirms: bool, **more: Any
    ) -> None:
        init(self, link, confirms=confirms and False, **more)

    patch.setattr(PublishChannel, "__init__", unconfirmed)
