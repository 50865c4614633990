"""What all slots of a worker share, and where the output of a run goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from shared.model.messages import MessageCodec, Progressed
from shared.supervision import Tasks
from worker.log_shipper import LogShipper
from worker.run_registry import RunEntry, RunRegistry
from worker.runtime.port import Runtime
from worker.sender import Sender


class WorkerContext(msgspec.Struct, frozen=True):
    """What all slots of a worker share."""

    node_id: str
    runtime: Runtime
    registry: RunRegistry
    sender: Sender
    codec: MessageCodec
    folder: Path
    spool_limit: int
    beat_number: Callable[[], int]
    beat_now: Callable[[], None]
    background: Tasks


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
