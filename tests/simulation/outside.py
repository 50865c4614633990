"""What is outside of the simulated processes: containers on hosts, and a receiver of webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shared.errors import RuntimeUnavailable
from shared.model.documents import TaskDocument
from tests.simulation import jobs
from tests.simulation.loop import current_process
from worker.runtime.port import Assignment, Outcome, Sink
from worker.slot import DRAINED

if TYPE_CHECKING:
    from tests.simulation.plant import Plant


ENGINE_LIMIT: Final = 10.0
"""Seconds after which a call of the engine is given up."""


class SimRun:
    """A run that takes the time, and ends, as its script says: `2.5 ok`, `0 fail`, `1 flaky`, `1 vanish`. Its result
    tells of which restart it is."""

    def __init__(self, plant: Plant, assignment: Assignment, sink: Sink) -> None:
        self.assignment = assignment
        self.process = current_process()
        self.vanished = False
        self.handed_back = False
        self.over = False
        self.unprepared = False
        """Whether the engine did not answer when its container was to be made."""
        self._plant = plant
        self._sink = sink
        self._over = asyncio.Event()
        self._reason = ""

    async def run(self) -> Outcome:
        task = self.assignment
        seconds, how = task.task.run.split()
        checker = self._plant.checker
        if self.unprepared:
            return Outcome(error="the engine does not answer", lost=True)
        checker.started(self, task.task.env.get(jobs.SAW, ""))
        try:
            await self._sink.write(f"begin {task.nonce}\n".encode())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(float(seconds) or 0.001):
                    await self._over.wait()
            await self._plant.engine.wait()
            self.vanished = self.vanished or (how == "vanish" and not self._over.is_set())
            if self.vanished:
                checker.kinds.add("vanish")
                return Outcome(error="its container vanished", lost=True)
            if self._over.is_set():
                return Outcome(error=self._reason)
            await self._sink.write(b"end\n")
        finally:
            checker.ended(self)
        if how == "fail" or (how == "flaky" and task.attempt == 1):
            return Outcome(error="as its script says", exit_code=1)
        return Outcome(result=f"{task.task.name}@{self._restarts()}", exit_code=0)

    def _restarts(self) -> int:
        rest = self._plant.data.of(TaskDocument).get(self.assignment.task_id, {})
        return int(rest.get("restarts", 0))

    async def stop(self, reason: str) -> None:
        self.handed_back = reason == DRAINED
        self._plant.checker.stopped(self)
        self._reason = reason
        self._over.set()

    def vanish(self) -> None:
        """Let its container be gone."""
        self.vanished = True
        self._over.set()

    async def remove(self) -> None:
        self._plant.containers.pop(self.assignment.nonce, None)


class SimRuntime:
    """Runs scripts of one line. All workers are on one host."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    async def start(self) -> None:
        return None

    def warm_up(self) -> None:
        return None

    async def prepare(self, assignment: Assignment, sink: Sink) -> SimRun:
        await asyncio.sleep(self._plant.latencies.uniform(0.01, 0.2))
        run = SimRun(self._plant, assignment, sink)
        try:
            await self.ping()
        except RuntimeUnavailable:
            run.unprepared = True
            return run
        self._plant.containers[assignment.nonce] = run
        return run

    async def sweep(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], mine: str
    ) -> int:
        """Remove what is left of nodes that are dead."""
        await self.ping()
        there = {run.assignment.node_id for run in self._plant.containers.values()} - {mine}
        gone = set(await dead(sorted(there))) if there else set()
        left = [n for n, r in self._plant.containers.items() if r.assignment.node_id in gone]
        for nonce in left:
            run = self._plant.containers.pop(nonce)
            self._plant.checker.removed(run.process)
            run.vanish()
        return len(left)

    async def ping(self) -> None:
        """Have an answer of the engine; raise `RuntimeUnavailable` where it hangs for too long."""
        try:
            async with asyncio.timeout(ENGINE_LIMIT):
                await self._plant.engine.wait()
        except TimeoutError:
            raise RuntimeUnavailable("simulated: the engine does not answer") from None

    async def close(self) -> None:
        return None


class Answer(msgspec.Struct, frozen=True):
    """What a receiver answers."""

    status: int


class Receiver:
    """Takes webhooks in the place of an HTTP session; refuses some at first, and may hang."""

    def __init__(self, plant: Plant, timeout: float) -> None:
        self._plant = plant
        self._timeout = timeout

    @contextlib.asynccontextmanager
    async def post(
        self, url: str, *, data: bytes, headers: dict[str, str], **_: Any
    ) -> AsyncIterator[Answer]:
        """Take one."""
        plant = self._plant
        await asyncio.sleep(plant.latencies.uniform(0.001, 0.05))
        if plant.receiver_hangs:
            await asyncio.sleep(self._timeout)
            raise TimeoutError
        id = headers["webhook-id"]
        plant.posts[id] += 1
        plant.checker.tried(id)
        if url.endswith("moody") and plant.posts[id] == 1:
            yield Answer(503)
            return
        plant.checker.told(id, json.loads(data))
        await asyncio.sleep(plant.latencies.uniform(0.001, 0.05))
        yield Answer(200)

    async def close(self) -> None:
        return None
