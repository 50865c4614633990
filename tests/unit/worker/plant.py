"""A worker on an in-memory broker, a runtime whose runs end when a test says so, and the coordinators' side of the
protocol in the test's own hands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from shared.broker.memory import MemoryBroker
from shared.broker.port import Delivery
from shared.model import language, queues
from shared.model.messages import (
    Beat,
    Claim,
    EndStored,
    Granted,
    HandedBack,
    Message,
    MessageCodec,
    Refused,
    RunEnded,
    TaskMessage,
)
from shared.model.queues import node_queue
from worker.daemon import Daemon, Settings
from worker.process_folder import ProcessFolder
from worker.runtime.port import Assignment, Outcome, Sink

M = TypeVar("M", bound=Message)

NODE = "node"
PATIENCE = 10.0


class HeldRun:
    """A run that ends as the test says."""

    def __init__(self, assignment: Assignment, sink: Sink) -> None:
        self.assignment = assignment
        self.sink = sink
        self.started = asyncio.Event()
        self.removed = asyncio.Event()
        self.stopped: str | None = None
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def end(self, outcome: Outcome) -> None:
        """Have it end."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def run(self) -> Outcome:
        self.started.set()
        return await self._outcome

    async def stop(self, reason: str) -> None:
        self.stopped = reason
        self.end(Outcome(error=reason))

    async def remove(self) -> None:
        self.removed.set()


class HeldRuntime:
    """A runtime of held runs."""

    def __init__(self) -> None:
        self.runs: dict[str, HeldRun] = {}
        self.swept_for: list[str] = []
        self.swept = asyncio.Event()
        self.warm = asyncio.Event()
        self._more = asyncio.Condition()
        self.left: list[str] = []

    async def start(self) -> None:
        return None

    def warm_up(self) -> None:
        self.warm.set()

    async def prepare(self, assignment: Assignment, sink: Sink) -> HeldRun:
        run = HeldRun(assignment, sink)
        async with self._more:
            self.runs[assignment.task_id] = run
            self._more.notify_all()
        return run

    async def prepared(self, task_id: str) -> HeldRun:
        """Return the run of a task once it is prepared."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: task_id in self.runs)
        return self.runs[task_id]

    async def sweep(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], mine: str
    ) -> int:
        left = [node for node in self.left if node != mine]
        if not left:
            return 0
        self.swept_for = list(await dead(left))
        self.swept.set()
        return len(self.swept_for)

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Plant:
    """The whole of it; the test plays the coordinators."""

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 1,
        drain_timeout: float = 5.0,
        node: str = NODE,
        slots_of: Mapping[str, int] | None = None,
        once: bool = False,
    ) -> None:
        self.broker = MemoryBroker(node_expiry=60.0)
        self.runtime = HeldRuntime()
        self.codec = MessageCodec()
        settings = Settings(
            node_id=node,
            name="worker",
            version="1",
            queues=slots_of or {"default": slots},
            once=once,
            beat=0.2,
            drain_timeout=drain_timeout,
            spool=folder / "spool",
            spool_limit=1024 * 1024,
        )
        self.folder = ProcessFolder(folder, node, self.codec)
        self.daemon = Daemon(self.broker, self.runtime, self.codec, settings, self.folder)
        self._heard: dict[type[Message], asyncio.Queue[Message]] = {}

    async def start(self) -> None:
        """Start broker and worker, and hear what the worker sends."""
        await self.broker.start()
        for queue in (
            queues.CLAIMS_QUEUE,
            queues.COMPLETED_QUEUE,
            queues.ERROR_QUEUE,
            queues.HEARTBEAT_QUEUE,
        ):
            await self.broker.subscribe(queue, self._hear, prefetch=100)
        await self.daemon.start()

    async def close(self) -> None:
        """Stop all."""
        await self.daemon.close()
        await self.broker.close()

    async def _hear(self, delivery: Delivery) -> None:
        message = self.codec.decode(delivery.body)
        self.heard(type(message)).put_nowait(message)
        await delivery.ack()

    def heard(self, kind: type[M]) -> asyncio.Queue[M]:
        """Return what was heard of a kind and not looked at yet."""
        return self._heard.setdefault(kind, asyncio.Queue())  # type: ignore[return-value]  # by its kind

    async def next(self, kind: type[M]) -> M:
        """Return the next message of a kind."""
        async with asyncio.timeout(PATIENCE):
            return await self.heard(kind).get()

    async def next_beat(self, wanted: Callable[[Beat], bool]) -> Beat:
        """Return the next beat that is as wanted."""
        async with asyncio.timeout(PATIENCE):
            while True:
                beat = await self.heard(Beat).get()
                if wanted(beat):
                    return beat

    async def tell(self, message: Message) -> None:
        """Tell the worker something, in its own queue."""
        await self.broker.publish(node_queue(NODE), self.codec.encode(message))

    async def publish(
        self,
        task_id: str = "task",
        run: str = "true",
        secrets: Sequence[str] = (),
        queue: str = "default",
    ) -> None:
        """Put a task into its queue."""
        message = TaskMessage(
            task_id=task_id,
            job_id="job",
            task=language.TaskDefinition(name=task_id, run=run),
            secrets=list(secrets),
        )
        await self.broker.publish(queue, self.codec.encode(message))

    async def grant(self, claim: Claim, run: int = 1) -> None:
        """Say yes to a claim."""
        await self.tell(Granted(task_id=claim.task_id, nonce=claim.nonce, run=run))

    async def refuse(self, claim: Claim) -> None:
        """Say no to a claim."""
        await self.tell(Refused(task_id=claim.task_id, nonce=claim.nonce, reason="it is over"))

    async def running(self, task_id: str = "task", secrets: Sequence[str] = ()) -> HeldRun:
        """Publish a task, grant its claim, and return its run once it has started."""
        await self.publish(task_id, secrets=secrets)
        claim = await self.next(Claim)
        await self.grant(claim)
        run = await self.runtime.prepared(task_id)
        async with asyncio.timeout(PATIENCE):
            await run.started.wait()
        return run

    async def stored(self, end: RunEnded | HandedBack) -> None:
        """Say that an end is stored."""
        await self.tell(EndStored(nonces=[end.nonce]))

    async def ready(self) -> int:
        """Return how many tasks wait in the queue, nobody holding them."""
        info = await self.broker.queue("default")
        assert info is not None
        return info.size
