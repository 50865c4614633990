"""The outbox: publishes tasks to their queues, answers to nodes, and events to listeners."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
from cachetools import LRUCache

from coordinator.effects.batching import Batcher
from coordinator.effects.events import Events
from coordinator.effects.job_metrics import task_trace
from coordinator.engine import transitions
from coordinator.engine.evaluation import kept_error, log_secrets
from coordinator.engine.flow import task_change
from coordinator.engine.new_documents import ENDED_INTENT, intent
from coordinator.engine.task_ends import task_hooks
from coordinator.engine.transitions import TaskFields, TaskMove
from coordinator.store.port import Change, Store
from shared.broker.port import Broker
from shared.errors import (
    BrokerMisconfigured,
    BrokerUnavailable,
    StoreUnavailable,
    Unreadable,
    WrongKey,
)
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    Micros,
    QueueDocument,
    TaskDocument,
)
from shared.model.messages import EndStored, Message, MessageCodec, TaskMessage
from shared.model.queries import D
from shared.model.queues import ALWAYS_THERE, DEFAULT_QUEUE, node_queue
from shared.model.states import TaskState

log = structlog.get_logger(__name__)

PUBLISHED = TaskMove((TaskState.PENDING,), TaskState.SCHEDULED)
UNPUBLISHABLE = TaskMove((TaskState.PENDING,), TaskState.FAILED)

MARK_DELAY = 0.25
"""Seconds that marks are gathered for: a task that a slot takes meanwhile needs none."""

ANSWER_DELAY = 0.05
"""Seconds that ends told stored are gathered for."""

SENT_WITHIN = 4.0
"""Seconds that the broker has to take a message: a handler that sends two must end within its own 10 s, for else the
coordinator takes a broker that is away for trouble of its own and gives back all that it holds."""

SPARED_FOR = 10.0
"""Seconds in which nothing more is sent to a queue whose broker did not take a message in time: a broker whose memory
is full would cost each of thousands of messages as long."""

NOTED_FOR: Micros = 600 * MICROS_PER_SECOND
"""How long a queue counts as used without a further write; far less than until an unused one is deleted."""

REMEMBERED_QUEUES = 2_000

_BATCH = 500


class Outbox:
    """Sends, and never raises for a broker that is away: what was to be sent is in the store, and the sweeper and
    the beats say it again."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        codec: MessageCodec,
        jobs: LRUCache[str, JobDocument],
        events: Events,
        redaction_keys: Sequence[str],
    ) -> None:
        self._store = store
        self._broker = broker
        self._codec = codec
        self._jobs = jobs
        self._events = events
        self._redaction_keys = redaction_keys
        self._later: Batcher[Change[Any]] = Batcher(
            self._write, delay=MARK_DELAY, size=_BATCH, name="later-writes"
        )
        self._stored: Batcher[tuple[str, str]] = Batcher(
            self._tell_stored, delay=ANSWER_DELAY, size=_BATCH, name="ends-stored"
        )
        self._noted: LRUCache[str, Micros] = LRUCache(REMEMBERED_QUEUES)
        self._spared: LRUCache[str, float] = LRUCache(REMEMBERED_QUEUES)
        """Queues that took nothing in time, and until when they are left alone."""
        self.marks = Marks()
        self.on_changed: Callable[[TaskDocument], None] = lambda _: None
        """Called with a task that was failed here, or has a webhook to be told."""

    def start(self) -> None:
        """Start sending what is gathered, in the background."""
        self._later.start()
        self._stored.start()

    async def close(self) -> None:
        """Send what is gathered, and stop."""
        await self._later.close()
        await self._stored.close()

    # --- writes that nobody awaits --------------------------------------------------------------------------------

    def write_later(self, change: Change[Any]) -> None:
        """Make a compare-and-set soon, in bulk."""
        self._later.add(change)

    async def _write(self, changes: list[Change[Any]]) -> None:
        wanted = [change for change in changes if self.marks.wanted(change)]
        try:
            if wanted:
                await self._store.change_many(wanted)
        except StoreUnavailable as error:
            log.info("deferred writes were dropped", count=len(wanted), reason=str(error))
        finally:
            for change in wanted:
                self.marks.end(change)

    # --- tasks ----------------------------------------------------------------------------------------------------

    async def publish_tasks(self, tasks: Sequence[TaskDocument]) -> bool:
        """Send tasks to their queues, with confirms, and mark those SCHEDULED that the broker has; return whether it
        refused none."""
        return all(await asyncio.gather(*(self._publish_task(task) for task in tasks)))

    async def _publish_task(self, task: TaskDocument) -> bool:
        job = self._jobs.get(task.job_id) or await self._store.get(JobDocument, task.job_id)
        if job is None or task.evaluated is None:
            return True
        self._jobs[job.id] = job
        mark = self.marks.begin(task, self._store.now())
        try:
            if await self._sent(job, task):
                await self._mark_scheduled(job, mark)
            else:
                self.marks.end(mark)
        except BrokerUnavailable as error:
            self.marks.end(mark)
            log.info(
                "a task is not published yet", task=task.id, queue=task.queue, reason=str(error)
            )
            return False
        except BaseException:
            self.marks.end(mark)
            raise
        return True

    async def _sent(self, job: JobDocument, task: TaskDocument) -> bool:
        """Send a task; return whether the broker has it: not where nobody can send it, and it failed. Raises
        `BrokerUnavailable`."""
        queue = task.queue or DEFAULT_QUEUE
        try:
            body = self._codec.encode(task_message(job, task, self._redaction_keys))
            await self._note_use(queue)
            await self._put(queue, body, priority=task.priority)
        except BrokerUnavailable:  # also where rights are missing: they may be given back
            raise
        except (BrokerMisconfigured, WrongKey, Unreadable) as error:
            await self._fail(job, task, str(error))
            return False
        return True

    async def _note_use(self, queue: str) -> None:
        """Store that a queue is used, before it is made: nobody else may know it when we are gone."""
        now = self._store.now()
        if queue in ALWAYS_THERE or now < self._noted.get(queue, 0) + NOTED_FOR:
            return
        if not await self._store.insert(QueueDocument(id=queue, used_at=now)):
            await self._store.change(Change(kind=QueueDocument, id=queue, set={"used_at": now}))
        self._noted[queue] = now

    async def _fail(self, job: JobDocument, task: TaskDocument, error: str) -> None:
        """Fail a task that can't be sent, whoever tries: its queue can't be used, or what it is can't be read."""
        image = await self._store.change(unpublishable(job, task, error, self._store.now()))
        if image is None:
            return
        if self._events.wanted:
            self._events.tell(image, job)
        self.on_changed(image)

    async def _mark_scheduled(self, job: JobDocument, mark: Change[TaskDocument]) -> None:
        at, run = mark.set["scheduled_at"], mark.where["run"]
        hooks = task_hooks(job, TaskState.SCHEDULED, at, run)
        if not (hooks or self._events.wanted):
            self._later.add(mark)
            return
        image = await self._store.change(msgspec.structs.replace(mark, add_then=hooks))
        self.marks.end(mark)
        if image is None:
            return
        if self._events.wanted:
            self._events.tell(image, job)
        if image.then:
            self.on_changed(image)

    # --- nodes ----------------------------------------------------------------------------------------------------

    async def send(self, node_id: str, message: Message) -> None:
        """Tell a node something; ends told stored are gathered, many in one message."""
        if isinstance(message, EndStored):
            for nonce in message.nonces:
                self._stored.add((node_id, nonce))
            return
        await self._to_node(node_id, message)

    async def _tell_stored(self, batch: list[tuple[str, str]]) -> None:
        by_node: dict[str, list[str]] = defaultdict(list)
        for node_id, nonce in batch:
            by_node[node_id].append(nonce)
        await asyncio.gather(
            *(self._to_node(node, EndStored(nonces=nonces)) for node, nonces in by_node.items())
        )

    async def _to_node(self, node_id: str, message: Message) -> None:
        try:
            await self._put(node_queue(node_id), self._codec.encode(message))
        except BrokerUnavailable as error:
            log.info(
                "a message to a node was not sent",
                node=node_id,
                message=type(message).__name__,
                reason=str(error),
            )

    async def _put(self, queue: str, body: bytes, *, priority: int = 0) -> None:
        """Publish, well within the time that a handler has. Raises `BrokerUnavailable`."""
        time = asyncio.get_running_loop().time
        if time() < self._spared.get(queue, 0.0):
            raise BrokerUnavailable("the broker accepted nothing a moment ago")
        try:
            async with asyncio.timeout(SENT_WITHIN):
                await self._broker.publish(queue, body, priority=priority)
        except TimeoutError:
            self._spared[queue] = time() + SPARED_FOR
            raise BrokerUnavailable(f"the broker accepted nothing for {SENT_WITHIN:g} s") from None


def unpublishable(
    job: JobDocument, task: TaskDocument, error: str, at: Micros
) -> Change[TaskDocument]:
    """Return the change that fails a task which cannot be published. Of a job that can't be read nobody hears."""
    hearing = None if job.locked else job
    fields = transitions.task_end(TaskState.FAILED, at, error=kept_error(hearing, error))
    add = (intent(ENDED_INTENT, at), *task_hooks(hearing, TaskState.FAILED, at))
    return task_change(task.id, {"run": task.run}, fields, move=UNPUBLISHABLE, add=add)


def task_message(job: JobDocument, task: TaskDocument, keys: Sequence[str]) -> TaskMessage:
    """Return the message that says to run `task`: always the same one, from what is stored. `keys`: what keys say that
    a value is secret."""
    assert task.evaluated is not None
    return TaskMessage(
        task_id=task.id,
        job_id=task.job_id,
        restarts=task.restarts,
        attempt=task.attempt,
        run=task.run,
        task=task.evaluated,
        secrets=log_secrets(job, task.evaluated, keys),
        trace=task_trace(job, task.id),
    )


class Marks:
    """The marks of tasks that this coordinator publishes, from then until they are written or their task is granted:
    one write less, or two, for each task that a free slot takes at once."""

    def __init__(self) -> None:
        self._marks: dict[str, Change[TaskDocument]] = {}

    def begin(self, task: TaskDocument, at: Micros) -> Change[TaskDocument]:
        """Return the mark of a task that is about to be published. A claim says that the broker has it, confirmed or
        not."""
        fields: TaskFields = {"scheduled_at": at, "published_at": at}
        mark = task_change(task.id, {"run": task.run}, fields, move=PUBLISHED)
        self._marks[task.id] = mark
        return mark

    def end(self, change: Change[Any]) -> None:
        """Forget a mark: it is written, or will not be. Nothing where the change is none, or not the last."""
        if self._marks.get(change.id) is change:
            del self._marks[change.id]

    def wanted(self, change: Change[Any]) -> bool:
        """Return whether a write is anything but a mark that its task's grant took with it."""
        return change.set.get("state") != TaskState.SCHEDULED or change.id in self._marks

    def with_mark(self, change: Change[D]) -> Change[D]:
        """Return a grant of a task whose mark is on its way as one that does the mark's work too; else the change."""
        mark = self._marks.get(change.id)
        if mark is None or change.set.get("state") != TaskState.RUNNING:
            return change
        if change.where.get("run") != mark.where["run"]:
            return change
        return msgspec.structs.replace(
            change, set={"scheduled_at": mark.set["scheduled_at"], **change.set}
        )

    def granted(self, task: TaskDocument) -> None:
        """Forget the mark of a task that was granted: if it is on its way, it has nothing left to say."""
        mark = self._marks.get(task.id)
        if mark is not None and task.run > mark.where["run"]:
            self.end(mark)
