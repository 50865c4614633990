"""The daemon: runs the worker's slots, queue, heartbeats and shutdown (engine spec, The run of a task)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path

import msgspec
import structlog

from shared.broker.port import Broker, Delivery, Slot, Subscription
from shared.errors import ApplicationError, UnknownKind, Unreadable
from shared.metrics import BROKER_OPERATIONS, Latencies
from shared.model.messages import (
    BeatFirst,
    DeadNodes,
    Drain,
    EndStored,
    Granted,
    HandedBack,
    Message,
    MessageCodec,
    NodeStored,
    Refused,
    SendEnd,
    Stop,
    Succeeded,
    WhoIsDead,
)
from shared.model.queues import node_queue
from shared.model.states import RunRole
from shared.supervision import Loop, Tasks, waiting
from shared.threads import in_thread
from worker.beats import BeatContent, WorkerBeats
from worker.context import RunEntry, RunRegistry, WorkerContext
from worker.meters import WorkerMeters
from worker.process_folder import End, FolderThread, ProcessFolder
from worker.runtime.port import Runtime
from worker.sender import Sender
from worker.slot import DRAINED, SlotWorker

log = structlog.get_logger(__name__)

SWEEP_EVERY = 60.0
"""Seconds between looks for what dead workers left on this host."""

REMOVED_WITHIN = 5.0
"""Seconds that the removal of what a process before this one left may hold up its start; then it goes on beside."""

_ANSWER_WITHIN = 30.0
"""Seconds to wait for which nodes are dead."""

_ANSWERED_WITHIN = 5.0
"""Seconds that a draining worker waits for answers to its claims: a grant that finds nobody costs a lease."""

STORED_WITHIN = 30.0
"""Seconds past the grace time that a draining worker takes to hand back, and to be told that its ends are stored."""

_PREFETCH = 100


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a worker. Times in seconds; Limits in bytes; no `log_limit`: 0."""

    node_id: str
    name: str
    version: str
    queues: Mapping[str, int]
    beat: float
    drain_timeout: float
    spool: Path
    spool_limit: int
    once: bool = False
    """Whether to take one task alone."""
    log_limit: int = 0


class Daemon:
    """A worker. It knows the broker and nothing else."""

    def __init__(
        self,
        broker: Broker,
        runtime: Runtime,
        codec: MessageCodec,
        settings: Settings,
        folder: ProcessFolder,
        meters: WorkerMeters | None = None,
    ) -> None:
        self._broker = broker
        self._folder = folder
        self._disk = FolderThread()
        self._runtime = runtime
        self._codec = codec
        self._settings = settings
        self.meters = meters or WorkerMeters(settings.version)
        self.meters.watch_slots(self._slot_figures)
        broker = Latencies("broker", self.meters.registry).watch(broker, BROKER_OPERATIONS)
        self._registry = RunRegistry()
        self._sender = Sender(broker, codec)
        self.beats = WorkerBeats(
            self._sender,
            runtime,
            self._beat_content,
            node_id=settings.node_id,
            name=settings.name,
            version=settings.version,
            queues=settings.queues,
            interval=settings.beat,
        )
        self._workers: list[SlotWorker] = []
        self._slots: list[Slot] = []
        self._loops: list[Loop] = []
        """One for each slot."""
        self._sweeps = Loop("sweep", self._sweep, every=SWEEP_EVERY)
        self._sweeping = asyncio.Lock()
        self._own: Subscription | None = None
        self._background = Tasks()
        self._dead_answers: asyncio.Queue[DeadNodes] = asyncio.Queue()
        self._draining = False
        self._ending = False
        """Whether it drains for good: nothing makes it go on."""
        self._taken_once = asyncio.Event()
        self._known = False
        self.beats.on_engine = self._pause_or_resume

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on where the processes before this one ended, take up the queues and begin to work."""
        await self._succeed()
        self._own = await self._broker.subscribe(
            node_queue(self._settings.node_id), self._heard, prefetch=_PREFETCH
        )
        await self.beats.start()
        self._broker.on_connected(lambda _: self.beats.ask())
        context = WorkerContext(
            self._settings.node_id,
            self._runtime,
            self._registry,
            self._sender,
            self._codec,
            self._settings.spool,
            self._settings.spool_limit,
            self._settings.log_limit,
            self._keep,
            lambda: self.beats.number,
            self.beats.ask,
            self._background,
            self.meters,
            self.beats.host_failed,
            self._granted,
        )
        for queue, count in self._settings.queues.items():
            for _ in range(count):
                slot = await self._broker.slot(queue)
                self._slots.append(slot)
                number = len(self._workers)
                self._workers.append(SlotWorker(context, slot, number))
                self._loops.append(Loop("slot", self._workers[-1].work, about=str(number)))
        for loop in (*self._loops, self._sweeps):
            loop.start()

    async def _succeed(self) -> None:
        """Take the processes' places that had this folder before: tell their ends, and remove what they left."""
        for end in await in_thread(self._folder.take):
            entry = RunEntry(end.task_id, end.job_id, end.nonce, 0)
            entry.granted(end.run)
            entry.ended(end, 0)
            self._registry.add(entry)
        dead = frozenset(self._folder.predecessors)
        if not dead:
            return
        log.info("goes on where a process ended that was killed", nodes=sorted(dead))

        async def those(nodes: Collection[str]) -> Collection[str]:
            return dead.intersection(nodes)

        await self.remove_left_by(those, REMOVED_WITHIN)

    async def remove_left_by(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], within: float
    ) -> None:
        """Remove what the nodes left that `dead` says are dead. What takes longer than `within` seconds goes on
        beside, until `close`."""
        removal = self._background.start(self._sweep_of(dead), "remove what is left")
        with waiting():
            await asyncio.wait({removal}, timeout=within)

    async def _sweep_of(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]]
    ) -> None:
        try:
            removed = await self._removed_of(dead)
        except ApplicationError as error:
            log.warning("what is left will be removed later", reason=str(error))
        else:
            if removed:
                log.info("removed what an earlier process left behind", things=removed)

    async def _keep(self, end: End) -> None:
        await self._disk.done(self._folder.keep, end)

    def _granted(self, entry: RunEntry) -> None:
        """Take nothing more where this was to be the only task; one granted beside it goes back."""
        if not self._settings.once:
            return
        if self._taken_once.is_set():
            entry.stop(DRAINED)
            return
        self._draining = self._ending = True
        for worker in self._workers:
            worker.finish()
        self._stop_all(RunRole.ASKED)
        self.beats.ask()
        self._taken_once.set()

    async def only_task_over(self) -> None:
        """Return once this worker has run the one task that it is to take; never where it takes any number."""
        await self._taken_once.wait()
        await self._slots_over()

    async def drain(self) -> None:
        """Take nothing new; let what runs end, or past the grace time hand it back; wait until all is stored."""
        self._draining = self._ending = True
        for worker in self._workers:
            worker.finish()
        giving_up = asyncio.get_running_loop().call_later(
            _ANSWERED_WITHIN, self._stop_all, RunRole.ASKED
        )
        self.beats.ask()
        log.info(
            "draining",
            running=len(self._registry.listed()),
            grace_seconds=self._settings.drain_timeout,
        )
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                await self._slots_over()
        except TimeoutError:
            self._stop_all(RunRole.ASKED, RunRole.RUNNING)
        giving_up.cancel()
        try:
            async with asyncio.timeout(STORED_WITHIN):
                await self._slots_over()
                await self._registry.wait_empty()
        except TimeoutError:
            log.warning(
                "not all results were confirmed as stored", left=len(self._registry.listed())
            )
        else:
            await self._disk.done(self._folder.leave)

    async def _slots_over(self) -> None:
        for loop in self._loops:
            await loop.wait()

    def _stop_all(self, *roles: RunRole) -> None:
        """Have claims given up, and what runs handed back."""
        for entry in self._registry:
            if entry.role in roles:
                entry.stop(DRAINED)

    async def close(self) -> None:
        """End now: what still runs is stopped by its runtime, and runs again elsewhere once the lease is out."""
        await self.beats.close()
        for loop in (*self._loops, self._sweeps):
            await loop.close()
        await self._background.cancel()
        for slot in self._slots:
            await slot.close()
        if self._own is not None:
            await self._own.close()
        await self._disk.done(self._folder.close)
        await self._disk.close()

    async def health(self) -> str | None:
        """Return what keeps this worker from working, or None."""
        try:
            await self._broker.ping()
        except ApplicationError as error:
            return str(error)
        return self.beats.engine_problem

    def _slot_figures(self) -> Iterator[tuple[str, bool]]:
        queues = (queue for queue, count in self._settings.queues.items() for _ in range(count))
        for queue, worker in zip(queues, self._workers, strict=False):  # while it starts, some
            yield queue, worker.task_id is not None

    def _beat_content(self) -> BeatContent:
        return BeatContent(
            draining=self._draining,
            held=self._registry.listed(),
            held_deliveries=[worker.task_id for worker in self._workers if worker.task_id],
            predecessors=self._folder.predecessors,
        )

    # --- the node's own queue -------------------------------------------------------------------------------------

    async def _heard(self, delivery: Delivery) -> None:
        try:
            self._obey(self._codec.decode(delivery.body))
        except UnknownKind as error:
            log.info("a message of a newer version is passed over", reason=str(error))
        except Unreadable as error:
            log.warning(
                "a message was moved to the queue dead", queue=delivery.queue, reason=str(error)
            )
            await delivery.bury(str(error))
            return
        await delivery.ack()

    def _obey(self, message: Message) -> None:
        match message:
            case Granted() | Refused() | BeatFirst():
                self._answer(message)
            case Stop(nonces=nonces, reason=reason):
                self._stop(nonces, reason)
            case EndStored(nonces=nonces):
                self._forget(nonces)
            case SendEnd(nonces=nonces):
                self._send_again(nonces)
            case NodeStored() | Succeeded() | DeadNodes():
                self._learn(message)
            case Drain(on=on):
                self._pause(on)
            case _:
                raise Unreadable(f"a worker does not handle a {type(message).__name__}")

    def _learn(self, message: NodeStored | Succeeded | DeadNodes) -> None:
        """Take note of what the coordinators know of nodes."""
        if isinstance(message, NodeStored):
            self._is_known()
        elif isinstance(message, Succeeded):
            self._disk.soon(self._folder.answered, message.nodes)
        else:
            self._dead_answers.put_nowait(message)

    def _is_known(self) -> None:
        """Warm up, now that the coordinators know this node: what it leaves will be found when it is dead."""
        if not self._known:
            self._known = True
            self._runtime.warm_up()

    def _answer(self, message: Granted | Refused | BeatFirst) -> None:
        if isinstance(message, Granted):
            self._is_known()
        entry = self._registry.find(message.nonce)
        if entry is None:
            if isinstance(message, Granted):
                self._hand_back(message)
            return
        entry.answer(None if isinstance(message, BeatFirst) else message)

    def _hand_back(self, grant: Granted) -> None:
        """Give back a grant that nobody waits for any more."""
        message = HandedBack(
            task_id=grant.task_id,
            job_id="",
            run=grant.run,
            nonce=grant.nonce,
            node_id=self._settings.node_id,
            reason="nobody waits for this grant any more",
        )
        self._background.start(self._sender.end(message), "hand back a grant")

    def _stop(self, nonces: Collection[str], reason: str) -> None:
        for nonce in nonces:
            entry = self._registry.find(nonce)
            if entry is None:
                continue
            if entry.role == RunRole.ENDED:
                self._forget([nonce])
            else:
                entry.stop(reason)

    def _forget(self, nonces: Collection[str]) -> None:
        for nonce in nonces:
            entry = self._registry.find(nonce)
            if entry is not None and entry.role == RunRole.ENDED:
                self._registry.forget(nonce)
                self._disk.soon(self._folder.strike_out, nonce)

    def _send_again(self, nonces: Collection[str]) -> None:
        for nonce in nonces:
            entry = self._registry.find(nonce)
            if entry is not None and entry.end is not None:
                self._background.start(self._sender.end(entry.end), "send an end again")

    def _pause(self, on: bool) -> None:
        if self._ending or self._draining == on:
            return
        self._draining = on
        self._pause_or_resume()
        self.beats.ask()

    def _pause_or_resume(self) -> None:
        """Have the slots take nothing new while this worker drains or its engine is away."""
        pause = self._draining or self.beats.engine_problem is not None
        for worker in self._workers:
            worker.pause() if pause else worker.resume()

    # --- what dead workers left -----------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        with waiting():
            removed = await self._removed_of(self._dead_of)
        if removed:
            log.info("removed what dead workers left behind", things=removed)

    async def _removed_of(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]]
    ) -> int:
        async with self._sweeping:
            return await self._runtime.sweep(dead, self._settings.node_id)

    async def _dead_of(self, nodes: Collection[str]) -> Collection[str]:
        """Ask which of these nodes are dead; nobody is, where no answer comes."""
        asked = sorted(set(nodes) - {self._settings.node_id})
        if not asked:
            return ()
        while (
            not self._dead_answers.empty()
        ):  # of a question that was given up: nodes may have come back since
            self._dead_answers.get_nowait()
        await self._sender.claim(WhoIsDead(node_id=self._settings.node_id, nodes=asked))
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                while True:
                    answer = await self._dead_answers.get()
                    if answer.asked == asked:
                        return answer.nodes
        except TimeoutError:
            return ()
