"""What the parts of a worker share: each other, and the runs that go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from shared.model.messages import (
    Granted,
    HandedBack,
    Held,
    MessageCodec,
    Progressed,
    Refused,
    RunEnded,
)
from shared.model.states import RunRole
from shared.supervision import Tasks
from shared.telemetry import span_in, traces
from shared.threads import in_thread
from worker.log_shipper import LogShipper
from worker.meters import WorkerMeters
from worker.process_folder import End
from worker.runtime.port import Runtime
from worker.sender import Sender

log = structlog.get_logger(__name__)


Answer = Granted | Refused | None
"""What a claim came to; None: beat first, and ask again."""


class RunEntry:
    """One nonce: a claim, then perhaps a run, then perhaps an end."""

    def __init__(self, task_id: str, job_id: str, nonce: str, beat: int) -> None:
        self.task_id = task_id
        self.job_id = job_id
        self.nonce = nonce
        self.beat = beat
        self.role = RunRole.ASKED
        self.run = 0
        self.end: RunEnded | HandedBack | None = None
        self.ended_beat = 0
        self.stopped: str | None = None
        self.trace = ""
        """The `traceparent` of the task."""
        self.stop_asked = asyncio.Event()
        self._answers: asyncio.Queue[Answer] = asyncio.Queue()

    @property
    def run_trace(self) -> str:
        """The `traceparent` of the run: its span where this process traces, else the task's."""
        return span_in(self.trace, self.nonce) if traces() else self.trace

    def answer(self, answer: Answer) -> None:
        """Hand an answer to whoever waits for it."""
        self._answers.put_nowait(answer)

    async def next_answer(self) -> Answer:
        """Wait for an answer."""
        return await self._answers.get()

    def granted(self, run: int) -> None:
        """Note that the claim was granted: it is a run now."""
        self.role = RunRole.RUNNING
        self.run = run

    def ended(self, end: RunEnded | HandedBack, beat: int) -> None:
        """Note that the run is over, after that beat; `end` is told until it is stored."""
        self.ended_beat = beat
        self.role = RunRole.ENDED
        self.end = end

    def stop(self, reason: str) -> None:
        """Ask for the run to be stopped: it no longer counts."""
        if self.stopped is None:
            self.stopped = reason or "it no longer counts"
            self.stop_asked.set()

    def held(self) -> Held:
        """Return the entry as a beat lists it."""
        return Held(
            task_id=self.task_id,
            nonce=self.nonce,
            role=self.role,
            run=self.run,
            beat=self.beat,
            ended_beat=self.ended_beat,
        )


class RunRegistry:
    """All entries, by nonce."""

    def __init__(self) -> None:
        self._entries: dict[str, RunEntry] = {}
        self._emptied = asyncio.Event()
        self._emptied.set()

    def add(self, entry: RunEntry) -> None:
        """List a nonce from now on."""
        self._entries[entry.nonce] = entry
        self._emptied.clear()

    def forget(self, nonce: str) -> None:
        """List a nonce no longer."""
        self._entries.pop(nonce, None)
        if not self._entries:
            self._emptied.set()

    def find(self, nonce: str) -> RunEntry | None:
        """Return the entry of a nonce, or None."""
        return self._entries.get(nonce)

    def __iter__(self) -> Iterator[RunEntry]:
        return iter(list(self._entries.values()))

    def listed(self) -> list[Held]:
        """Return what a beat lists."""
        return [entry.held() for entry in self._entries.values()]

    async def wait_empty(self) -> None:
        """Return once nothing is listed any more."""
        await self._emptied.wait()


class WorkerContext(msgspec.Struct, frozen=True):
    """What all slots of a worker share."""

    node_id: str
    runtime: Runtime
    registry: RunRegistry
    sender: Sender
    codec: MessageCodec
    spool: Path
    spool_limit: int
    log_limit: int
    keep_end: Callable[[End], Awaitable[None]]
    """Has the end of a run written down, before it is told for the first time."""
    beat_number: Callable[[], int]
    beat_now: Callable[[], None]
    background: Tasks
    meters: WorkerMeters
    host_failed: Callable[[str], None]
    """Has the worker take nothing until its next check of its engine and its disk passes."""
    on_granted: Callable[[RunEntry], None]
    """Called as soon as a run is granted."""


class RunSink:
    """Where the output of one run goes: its log shipper, and progress as it changes."""

    def __init__(self, context: WorkerContext, entry: RunEntry, shipper: LogShipper) -> None:
        self._context = context
        self._entry = entry
        self._shipper = shipper

    async def write(self, data: bytes) -> None:
        """Take bytes of the log."""
        await self._shipper.write(data)

    async def progress(self, percent: float) -> None:
        """Tell a new value of progress."""
        entry = self._entry
        message = Progressed(
            task_id=entry.task_id,
            job_id=entry.job_id,
            run=entry.run,
            nonce=entry.nonce,
            progress=percent,
        )
        await self._context.sender.progress(message)

    async def redacted(self, text: str) -> str:
        """Return a part of the log without the secrets in it."""
        return await in_thread(self._shipper.redacted_log, text)
