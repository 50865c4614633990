"""Running tasks by any adapter of the Runtime port, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

from shared.model.language import TaskDefinition
from worker.runtime.port import Assignment, Outcome, Run, Runtime

IMAGE = "alpine:3.18.3"
ENOUGH = 60
"""Seconds after which a test has waited for nothing."""


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Log:
    """A sink that keeps what it is given, and can be waited on."""

    data: bytes = b""
    told: list[float] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def write(self, data: bytes) -> None:
        self.data += data
        async with self.changed:
            self.changed.notify_all()

    async def progress(self, percent: float) -> None:
        self.told.append(percent)
        async with self.changed:
            self.changed.notify_all()

    async def redacted(self, text: str) -> str:
        return text

    async def until(self, holds: Callable[[Log], bool]) -> None:
        """Return when `holds` says so of it."""
        async with asyncio.timeout(ENOUGH), self.changed:
            await self.changed.wait_for(lambda: holds(self))

    @property
    def text(self) -> str:
        return self.data.decode()


@dataclass
class Ran:
    """The end of a run, and its log."""

    outcome: Outcome
    log: Log


@dataclass
class Subject:
    """A started runtime, and how it is spoken to."""

    kind: str
    runtime: Runtime
    node_id: str
    numbers: count[int] = field(default_factory=count)

    def task(self, **fields: Any) -> TaskDefinition:
        """Return a task; with an image, where the runtime wants one."""
        if self.kind != "shell":
            fields.setdefault("image", IMAGE)
        return TaskDefinition(**fields)

    def small(self, kind: type[Any], **fields: Any) -> Any:
        """Return a pre task, a post task or a sidecar likewise."""
        if self.kind != "shell":
            fields.setdefault("image", IMAGE)
        return kind(**fields)

    def assignment(self, task: TaskDefinition) -> Assignment:
        number = next(self.numbers)
        return Assignment(
            task_id=uuid4().hex,
            job_id="job1",
            node_id=self.node_id,
            nonce=f"nonce{number}",
            attempt=2,
            task=task,
            trace=TRACE,
        )

    @asynccontextmanager
    async def prepared(self, log: Log, **fields: Any) -> Any:
        """Prepare a run, and remove it in the end."""
        run = await self.runtime.prepare(self.assignment(self.task(**fields)), log)
        try:
            yield run
        finally:
            await run.remove()

    async def ran(self, **fields: Any) -> Ran:
        """Run a task from its preparation to its removal."""
        log = Log()
        async with asyncio.timeout(ENOUGH), self.prepared(log, **fields) as run:
            return Ran(await run.run(), log)

    async def stopped(self, run: Run, log: Log, mark: str, reason: str) -> Outcome:
        """Run until `mark` is in the log, then stop."""
        async with asyncio.timeout(ENOUGH):
            work = asyncio.create_task(run.run())
            await log.until(lambda log: mark in log.text)
            await run.stop(reason)
            return await work


async def nobody_dead(nodes: Collection[str]) -> Collection[str]:
    """Say that all live."""
    del nodes
    return ()


async def all_dead(nodes: Collection[str]) -> Collection[str]:
    """Say that all are dead."""
    return nodes
