"""A worker's beats: what it holds and how it is, sent every few seconds (engine spec, Beats).

A beat waits for nothing: of the engine and the machine's load it says what was last seen.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping

import msgspec
import psutil
import structlog

from shared.errors import RuntimeUnavailable
from shared.model.documents import MICROS_PER_SECOND
from shared.model.messages import Beat, Held
from shared.model.states import NodeKind, NodeStatus
from shared.supervision import Loop, start_task
from worker.runtime.port import Runtime
from worker.sender import Sender

log = structlog.get_logger(__name__)

ENGINE_ANSWERS_WITHIN = 2.0
"""Seconds that the engine has to answer; else this node is DOWN."""


class BeatContent(msgspec.Struct, frozen=True):
    """What only the daemon knows of the moment of a beat."""

    draining: bool
    held: list[Held]
    held_deliveries: list[str]
    predecessors: list[str]


class WorkerBeats:
    """Sends the beats of one node: one every `interval` seconds, and one as soon as `ask` wants it."""

    def __init__(
        self,
        sender: Sender,
        runtime: Runtime,
        content: Callable[[], BeatContent],
        *,
        node_id: str,
        name: str,
        version: str,
        queues: Mapping[str, int],
        interval: float,
    ) -> None:
        self._sender = sender
        self._runtime = runtime
        self._content = content
        self._about = Beat(
            node_id=node_id,
            node_kind=NodeKind.WORKER,
            number=0,
            name=name,
            hostname=socket.gethostname(),
            version=version,
            started_at=int(time.time() * MICROS_PER_SECOND),
            queues=dict(queues),
        )
        self.number = 0
        """Of the last beat."""
        self.port: int | None = None
        """Where `GET /health` of this worker is."""
        self.engine_problem: str | None = None
        """What was last seen wrong with the engine."""
        self.on_engine: Callable[[], None] = lambda: None
        """Called when the engine goes away or comes back."""
        self._asked = asyncio.Event()
        self._cpu_percent = 0.0
        self._ping: asyncio.Task[None] | None = None
        self._beats = Loop("beats", self.beat, every=interval, woken_by=self._asked)
        self._checks = Loop("engine check", self._check_engine, every=interval)

    async def start(self) -> None:
        """Send the first beat, then begin to send."""
        await self.beat()
        self._beats.start()
        self._checks.start()

    async def close(self) -> None:
        """Send no more."""
        await self._beats.close()
        await self._checks.close()
        if self._ping is not None:
            self._ping.cancel()  # a call of the engine ends when the engine answers

    def ask(self) -> None:
        """Have a beat sent at once."""
        self._asked.set()

    async def beat(self) -> None:
        """Send one now."""
        self.number += 1
        content = self._content()
        await self._sender.beat(
            msgspec.structs.replace(
                self._about,
                number=self.number,
                cpu_percent=self._load(),
                port=self.port,
                status=NodeStatus.DOWN if self.engine_problem else NodeStatus.UP,
                draining=content.draining,
                held=content.held,
                held_deliveries=content.held_deliveries,
                predecessors=content.predecessors,
            )
        )

    def _load(self) -> float:
        """Return the CPU's load in percent, or what it was, where the system does not say: it may have no descriptor
        left to read that from."""
        try:
            self._cpu_percent = psutil.cpu_percent()
        except (OSError, psutil.Error) as error:
            log.info("the load of this machine can't be read", reason=str(error))
        return self._cpu_percent

    def host_failed(self, reason: str) -> None:
        """Take this for a problem until the next check passes: the host kept a run from being prepared."""
        if self.engine_problem is None:
            self.engine_problem = reason
            log.warning("no tasks are taken until this host is checked", reason=reason)
            self.on_engine()
            self.ask()

    async def _check_engine(self) -> None:
        """See how the engine is, and say at once where that has changed."""
        found = await self._problem_of_engine()
        before, self.engine_problem = self.engine_problem, found
        if bool(before) == bool(self.engine_problem):
            return
        if self.engine_problem:
            log.warning("no tasks are taken until the engine answers", reason=self.engine_problem)
        else:
            log.info("tasks are taken again")
        self.on_engine()
        self.ask()

    async def _problem_of_engine(self) -> str | None:
        """Ask the engine for a sign of life; one question at a time, however long it takes to answer."""
        ping = self._ping or start_task(self._runtime.ping(), "ping the engine")
        await asyncio.wait({ping}, timeout=ENGINE_ANSWERS_WITHIN)
        if not ping.done():
            self._ping = ping
            return "the engine does not answer"
        self._ping = None
        try:
            ping.result()
        except RuntimeUnavailable as error:
            return str(error)
        return None
