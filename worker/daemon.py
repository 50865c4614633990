"""The daemon: runs the worker's slots, queue, heartbeats and shutdown (engine spec, The run of a task)."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import structlog

from shared.broker.port import Broker, Delivery, Slot, Subscription
from shared.errors import HaulierError, RuntimeUnavailable, Unreadable
from shared.model.documents import MICROS_PER_SECOND
from shared.model.messages import (
    Beat,
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
    WhoIsDead,
)
from shared.model.queues import node_queue
from worker.context import WorkerContext
from worker.granted_run import DRAINED
from worker.run_registry import HAS_ASKED, HAS_ENDED, IS_RUNNING, RunRegistry
from worker.runtime.port import Runtime
from worker.sender import Sender
from worker.slot import SlotWorker

log = structlog.get_logger(__name__)

SWEEP_EVERY = 600.0
"""Seconds between looks for what dead workers left on this host."""

_ANSWER_WITHIN = 30.0
"""Seconds to wait for which nodes are dead."""

_ANSWERED_WITHIN = 5.0
"""Seconds that a draining worker waits for answers to its claims: a grant that finds nobody costs a lease."""

STORED_WITHIN = 30.0
"""Seconds past the grace time that a draining worker takes to hand back, and to be told that its ends are stored."""

_PREFETCH = 100


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a worker."""

    node_id: str
    name: str
    version: str
    queues: Mapping[str, int]
    beat: float = 5.0
    drain_timeout: float = 60.0
    folder: Path
    spool_limit: int = 256 * 1024 * 1024


class Daemon:
    """A worker. It knows the broker and nothing else."""

    def __init__(
        self, broker: Broker, runtime: Runtime, codec: MessageCodec, settings: Settings
    ) -> None:
        self._broker = broker
        self._runtime = runtime
        self._codec = codec
        self._settings = settings
        self._registry = RunRegistry()
        self._sender = Sender(broker, codec)
        self._beats = 0
        self._started_at = int(time.time() * MICROS_PER_SECOND)
        self._beat_asked = asyncio.Event()
        self._workers: list[SlotWorker] = []
        self._slots: list[Slot] = []
        self._working: list[asyncio.Task[None]] = []
        self._beating: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._own: Subscription | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._dead_answers: asyncio.Queue[DeadNodes] = asyncio.Queue()
        self._draining = False
        self._engine_problem: str | None = None
        self._known = False
        self.port: int | None = None

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the queues and begin to work."""
        psutil.cpu_percent()
        self._own = await self._broker.subscribe(
            node_queue(self._settings.node_id), self._heard, prefetch=_PREFETCH
        )
        await self._beat()
        self._broker.on_connected(lambda _: self._beat_asked.set())
        self._beating = asyncio.create_task(self._keep_beating(), name="beats")
        context = WorkerContext(
            self._settings.node_id,
            self._runtime,
            self._registry,
            self._sender,
            self._codec,
            self._settings.folder,
            self._settings.spool_limit,
            lambda: self._beats,
            self._beat_asked.set,
        )
        for queue, count in self._settings.queues.items():
            for _ in range(count):
                slot = await self._broker.slot(queue)
                self._slots.append(slot)
                self._workers.append(SlotWorker(context, slot, len(self._workers)))
        self._working = [
            asyncio.create_task(self._keep_working(worker), name=f"slot-{number}")
            for number, worker in enumerate(self._workers)
        ]
        self._sweeping = asyncio.create_task(self._keep_sweeping(), name="sweep")

    async def _keep_working(self, worker: SlotWorker) -> None:
        """Work a slot; one that fails for a reason of its own takes up again."""
        while True:
            try:
                await worker.work()
            except Exception:
                log.exception("a slot failed and starts again")
                await asyncio.sleep(1.0)
            else:
                return

    async def drain(self) -> None:
        """Take nothing new; let what runs end, or past the grace time hand it back; wait until all is stored."""
        self._draining = True
        for worker in self._workers:
            worker.finish()
        giving_up = asyncio.get_running_loop().call_later(
            _ANSWERED_WITHIN, self._stop_all, HAS_ASKED
        )
        self._beat_asked.set()
        log.info(
            "draining",
            running=len(self._registry.listed()),
            grace_seconds=self._settings.drain_timeout,
        )
        pending: set[asyncio.Task[None]] = set()
        if self._working:
            _, pending = await asyncio.wait(self._working, timeout=self._settings.drain_timeout)
        giving_up.cancel()
        if pending:
            self._stop_all(HAS_ASKED, IS_RUNNING)
        try:
            async with asyncio.timeout(STORED_WITHIN):
                if pending:
                    await asyncio.wait(pending)
                await self._registry.wait_empty()
        except TimeoutError:
            log.warning(
                "not all results were confirmed as stored", left=len(self._registry.listed())
            )

    def _stop_all(self, *roles: str) -> None:
        """Have claims given up, and what runs handed back."""
        for entry in self._registry:
            if entry.role in roles:
                entry.stop(DRAINED)

    async def close(self) -> None:
        """End now: what still runs is stopped by its runtime, and runs again elsewhere once the lease is out."""
        tasks = [
            task for task in (self._beating, self._sweeping, *self._working) if task is not None
        ]
        for task in (*tasks, *self._background):
            task.cancel()
        await asyncio.gather(*tasks, *self._background, return_exceptions=True)
        for slot in self._slots:
            await slot.close()
        if self._own is not None:
            await self._own.close()

    async def health(self) -> str | None:
        """Return what keeps this worker from working, or None."""
        try:
            await self._runtime.ping()
            await self._broker.ping()
        except HaulierError as error:
            return str(error)
        return None

    # --- beats ----------------------------------------------------------------------------------------------------

    async def _keep_beating(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.beat):
                    await self._beat_asked.wait()
            except TimeoutError:
                pass
            self._beat_asked.clear()
            await self._check_engine()
            await self._beat()

    async def _check_engine(self) -> None:
        try:
            async with asyncio.timeout(2.0):
                await self._runtime.ping()
            self._engine_problem = None
        except (RuntimeUnavailable, TimeoutError) as error:
            self._engine_problem = str(error) or "the engine does not answer"

    async def _beat(self) -> None:
        self._beats += 1
        beat = Beat(
            node_id=self._settings.node_id,
            node_kind="worker",
            number=self._beats,
            name=self._settings.name,
            hostname=socket.gethostname(),
            version=self._settings.version,
            started_at=self._started_at,
            cpu_percent=psutil.cpu_percent(),
            queues=dict(self._settings.queues),
            port=self.port,
            status="DOWN" if self._engine_problem else "UP",
            draining=self._draining,
            held=self._registry.listed(),
            held_deliveries=[worker.task_id for worker in self._workers if worker.task_id],
        )
        await self._sender.beat(beat)

    # --- the node's own queue -------------------------------------------------------------------------------------

    async def _heard(self, delivery: Delivery) -> None:
        try:
            self._obey(self._codec.decode(delivery.body))
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
            case NodeStored():
                self._is_known()
            case DeadNodes():
                self._dead_answers.put_nowait(message)
            case Drain(on=on):
                self._pause(on)
            case _:
                raise Unreadable(f"a worker does not handle a {type(message).__name__}")

    def _is_known(self) -> None:
        """The coordinators have this node in their store: what it leaves will be found when it is dead."""
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
        self._in_background(self._sender.end(message), "hand-back")

    def _stop(self, nonces: Collection[str], reason: str) -> None:
        for nonce in nonces:
            entry = self._registry.find(nonce)
            if entry is None:
                continue
            if entry.role == HAS_ENDED:
                self._registry.forget(nonce)
            else:
                entry.stop(reason)

    def _forget(self, nonces: Collection[str]) -> None:
        for nonce in nonces:
            entry = self._registry.find(nonce)
            if entry is not None and entry.role == HAS_ENDED:
                self._registry.forget(nonce)

    def _send_again(self, nonces: Collection[str]) -> None:
        for nonce in nonces:
            entry = self._registry.find(nonce)
            if entry is not None and entry.end is not None:
                self._in_background(self._sender.end(entry.end), "end-again")

    def _pause(self, on: bool) -> None:
        if self._draining == on:
            return
        self._draining = on
        for worker in self._workers:
            worker.pause() if on else worker.resume()
        self._beat_asked.set()

    def _in_background(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- what dead workers left -----------------------------------------------------------------------------------

    async def _keep_sweeping(self) -> None:
        while True:
            try:
                removed = await self._runtime.sweep(self._dead_of, self._settings.node_id)
            except Exception:
                log.exception("could not look for what dead workers left behind")
            else:
                if removed:
                    log.info("removed what dead workers left behind", things=removed)
            await asyncio.sleep(SWEEP_EVERY)

    async def _dead_of(self, nodes: Collection[str]) -> Collection[str]:
        """Ask which of these nodes are dead; nobody is, where no answer comes."""
        asked = sorted(set(nodes) - {self._settings.node_id})
        if not asked:
            return ()
        await self._sender.claim(WhoIsDead(node_id=self._settings.node_id, nodes=asked))
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                while True:
                    answer = await self._dead_answers.get()
                    if answer.asked == asked:
                        return answer.nodes
        except TimeoutError:
            return ()
