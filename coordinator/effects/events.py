"""Publishes state changes to the coordinators that have listeners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from shared.broker.port import Broker, Delivery, Subscription
from shared.errors import ApplicationError
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
)
from shared.model.messages import Listening, StateChanged, decode, encode
from shared.model.views import as_plain, job_summary, task_summary
from shared.model.views.redacted import redactor_of_job, told
from shared.supervision import Loop, Tasks, waiting

log = structlog.get_logger(__name__)

LISTENING_FOR: Micros = 30 * MICROS_PER_SECOND
"""For how long one announcement of a listener holds."""

ANNOUNCE_EVERY = 10.0
"""Seconds between announcements while somebody listens."""

BACKLOG = 1000
"""Events that a slow reader may lag behind before it loses the oldest."""


class Events:
    """Sends and receives the events of this coordinator."""

    def __init__(
        self, broker: Broker, now: Callable[[], Micros], redaction_keys: Sequence[str]
    ) -> None:
        self._broker = broker
        self._now = now
        self._redaction_keys = redaction_keys
        self._until: Micros = 0
        self._readers: set[asyncio.Queue[StateChanged]] = set()
        self._subscription: Subscription | None = None
        self._announcer: Loop | None = None
        self._sending = Tasks()
        self.observe: Callable[[Document, JobDocument | None], None] | None = None
        """Called here with each new state of a job or task, and each beat: extensions want to know."""
        self.on_log: Callable[[Sequence[LogPartDocument]], None] = lambda _: None
        """Called here with the parts of logs that were stored."""

    async def start(self) -> None:
        """Start to hear events and announcements of other coordinators."""
        self._subscription = await self._broker.subscribe_events(self._heard)

    async def close(self) -> None:
        """Stop; readers see no more."""
        if self._announcer is not None:
            await self._announcer.close()
        if self._subscription is not None:
            await self._subscription.close()
        await self._sending.cancel()

    # --- telling --------------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether anybody listens now."""
        return bool(self._readers) or self.observe is not None or self._until > self._now()

    def tell(self, document: Document, job: JobDocument | None) -> None:
        """Tell that the state of a job or task is what `document` says."""
        if self.observe is not None:
            self.observe(document, job)
            if not self._readers and self._until <= self._now():
                return
        event = state_changed(document, job, self._now(), self._redaction_keys)
        if event is None:
            return
        self._sending.start(self._broker.publish_event(encode(event)), "send an event")

    # --- hearing --------------------------------------------------------------------------------------------------

    async def read(self) -> AsyncIterator[StateChanged]:
        """Yield events from now on, until the iterator is closed."""
        queue: asyncio.Queue[StateChanged] = asyncio.Queue(BACKLOG)
        self._readers.add(queue)
        self._announce()
        try:
            while True:
                yield await queue.get()
        finally:
            self._readers.discard(queue)

    def _announce(self) -> None:
        if self._announcer is None or self._announcer.over:
            self._announcer = Loop("announce listeners", self._announcing)
            self._announcer.start()

    async def _announcing(self) -> None:
        while self._readers:
            await self._broker.publish_event(encode(Listening(until=self._now() + LISTENING_FOR)))
            with waiting():
                await asyncio.sleep(ANNOUNCE_EVERY)

    async def _heard(self, delivery: Delivery) -> None:
        try:
            message = decode(delivery.body)
        except ApplicationError as error:
            log.warning("an event could not be read", reason=str(error))
            return
        if isinstance(message, Listening):
            self._until = max(self._until, message.until)
        elif isinstance(message, StateChanged):
            for queue in self._readers:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(message)


def state_changed(
    document: Document, job: JobDocument | None, at: Micros, redaction_keys: Sequence[str]
) -> StateChanged | None:
    """Return the event of a job's or task's change, redacted; None where its job is not at hand."""
    if isinstance(document, JobDocument):
        summary = job_summary(document, redactor_of_job(document, redaction_keys))
        return StateChanged(
            type="job.StateChange",
            job_id=document.id,
            state=document.state,
            at=at,
            summary=told(as_plain(summary)),
        )
    if not isinstance(document, TaskDocument) or job is None:
        return None
    return StateChanged(
        type="task.StateChange",
        job_id=document.job_id,
        task_id=document.id,
        state=document.state,
        at=at,
        summary=told(as_plain(task_summary(document, redactor_of_job(job, redaction_keys)))),
    )
