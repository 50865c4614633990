"""Maps each kind of message to the flow that handles it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from coordinator.due.pulse_probes import PulseProbes
from coordinator.effects import FlowDriver
from coordinator.engine import beats, grants, progress, task_runs
from shared.errors import Unreadable
from shared.model import messages, queues
from shared.model.documents import JobDocument, NodeDocument
from shared.model.messages import (
    Beat,
    Claim,
    DeadNodes,
    HandedBack,
    JobChanged,
    Message,
    Progressed,
    PulseProbe,
    RunEnded,
    WhoIsDead,
)

READ_BY: dict[str, tuple[type[Message], ...]] = {
    queues.JOBS_QUEUE: (JobChanged,),
    queues.CLAIMS_QUEUE: (Claim, WhoIsDead),
    queues.COMPLETED_QUEUE: (RunEnded, HandedBack, PulseProbe),
    queues.ERROR_QUEUE: (RunEnded, HandedBack, PulseProbe),
    queues.PROGRESS_QUEUE: (Progressed,),
    queues.HEARTBEAT_QUEUE: (Beat, PulseProbe),
    queues.LOGS_QUEUE: (messages.LogWritten, PulseProbe),
}
"""What each queue may carry. Anything else in it is buried."""


class MessageHandlers:
    """Handles messages by kind. A message can arrive twice, late, or in the wrong order."""

    def __init__(self, driver: FlowDriver, probes: PulseProbes) -> None:
        self._driver = driver
        self._probes = probes
        self._answering: set[str] = set()
        self._by_kind: dict[type[Message], Callable[[Any], Awaitable[None]]] = {
            JobChanged: self._job_changed,
            Claim: self._claim,
            WhoIsDead: self._who_is_dead,
            RunEnded: self._run_ended,
            HandedBack: self._handed_back,
            PulseProbe: self._probe,
            Progressed: self._progressed,
            Beat: self._beat,
        }

    async def handle(self, queue: str, message: Message) -> None:
        """Handle a message of `queue`; `Unreadable` where that is none that the queue may carry."""
        if not isinstance(message, READ_BY.get(queue, ())):
            raise Unreadable(
                f"a message of kind {type(message).__name__} is not expected in queue {queue!r}"
            )
        await self._by_kind[type(message)](message)

    async def _job_changed(self, message: JobChanged) -> None:
        job = await self._driver.store.get(JobDocument, message.job_id)
        if job is not None:
            await self._driver.follow_for_a_while([job])

    async def _claim(self, message: Claim) -> None:
        """Answer a claim. One that is asked again meanwhile has its answer on the way: a coordinator that is slow
        must not get slower by being asked twice."""
        if message.nonce in self._answering:
            return
        self._answering.add(message.nonce)
        try:
            await self._driver.handle(grants.on_claim(message))
        finally:
            self._answering.discard(message.nonce)

    async def _who_is_dead(self, message: WhoIsDead) -> None:
        nodes = await self._driver.store.get_many(NodeDocument, message.nodes)
        dead = [node.id for node in nodes if node.closed]
        await self._driver.outbox.send(message.node_id, DeadNodes(asked=message.nodes, nodes=dead))

    async def _run_ended(self, message: RunEnded) -> None:
        await self._driver.handle(task_runs.on_run_ended(message))

    async def _handed_back(self, message: HandedBack) -> None:
        await self._driver.handle(task_runs.on_handed_back(message))

    async def _probe(self, message: PulseProbe) -> None:
        self._probes.taken(message)

    async def _progressed(self, message: Progressed) -> None:
        await self._driver.handle(progress.on_progress(message))

    async def _beat(self, message: Beat) -> None:
        await self._driver.handle(beats.on_beat(message))
