"""The flow driver: carries out each effect that a flow yields, and sends the result back into it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec
import structlog
from cachetools import LRUCache

from coordinator.effects.batching import JobLooks
from coordinator.effects.evaluations import EvaluationBusy, Evaluations
from coordinator.effects.events import Events
from coordinator.effects.outbox import Outbox
from coordinator.engine import flow, intents, job_lifecycle, task_runs
from coordinator.engine.flow import Bounds, Flow
from coordinator.store.port import Change, SlotTaken, Store
from shared.broker.port import Broker
from shared.model.documents import (
    Document,
    JobDocument,
    LogPartDocument,
    NodeDocument,
    TaskDocument,
)
from shared.model.messages import MessageCodec
from shared.model.queries import Below
from shared.model.states import JobState
from shared.supervision import Tasks, came_round, start_task

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

REMEMBERED_JOBS = 2_000
REMEMBERED_BYTES = 64 * 1024 * 1024
"""What the jobs that are kept at hand take, about."""

REMEMBERED_NODES = 10_000

A_WHILE = 4.0
"""Seconds that a handler waits for what follows from its message; less than its deadline."""

_MOVES = frozenset({"open", "progress", "position"})
"""Fields of a child or sub-job whose change may move the progress of what is above it."""


_ENCODED: Final = 8
"""By so much more an object takes in memory than encoded, about."""

_SMALL: Final = 2_000
"""Bytes that the rest of a job takes, about."""


def _weight(job: JobDocument) -> int:
    """Return about how many bytes a job takes in memory: what is small in all of them is not looked at."""
    big = (job.definition, job.inherited_secrets, job.result)
    return min(_ENCODED * len(msgspec.msgpack.encode(big)) + _SMALL, REMEMBERED_BYTES)


class FlowDriver:
    """Runs flows. There is one for each coordinator; all its methods belong to one event loop."""

    def __init__(self, store: Store, broker: Broker, bounds: Bounds, codec: MessageCodec) -> None:
        self.store = store
        self.bounds = bounds
        self.counts: Counter[str] = Counter()
        self._jobs: LRUCache[str, JobDocument] = LRUCache(REMEMBERED_BYTES, getsizeof=_weight)
        self._leases: LRUCache[str, NodeDocument] = LRUCache(REMEMBERED_NODES)
        self._begun: LRUCache[str, bool] = LRUCache(REMEMBERED_JOBS)
        self.evaluations = Evaluations(bounds.expression_steps, bounds.expression_bytes)
        self.events = Events(broker, store.now, bounds.redaction_keys)
        self.outbox = Outbox(store, broker, codec, self._jobs, self.events)
        self.outbox.on_hooked = self.follow_soon
        self._looks = JobLooks(store)
        self._moved: set[str] = set()
        self._following = Tasks()
        self._steps: dict[type, Callable[[Any], Awaitable[Any]]] = {
            flow.Get: self._get,
            flow.Recall: self._recall,
            flow.Find: self._find,
            flow.Count: self._count,
            flow.Insert: self._insert,
            flow.InsertMany: self._insert_many,
            Change: self._change,
            flow.JobChange: self._change,
            flow.TaskChange: self._change,
            flow.ChangeFirst: self._change_first,
            flow.Delete: self._delete,
            flow.Later: self._later,
            flow.Apply: self._apply,
            flow.ApplyMany: self._apply_many,
            flow.Publish: self._publish,
            flow.Send: self._send,
            flow.Vars: self._vars,
            flow.Evaluate: self.evaluations.evaluate,
            flow.AppendLog: self._append_log,
            flow.DropLogs: self._drop_logs,
            flow.Now: self._now,
            flow.Lease: self._lease,
            flow.Standing: self._standing,
            flow.Started: self._started,
            flow.AskBounds: self._bounds,
            flow.Noted: self._noted,
        }

    async def start(self) -> None:
        """Start what runs in the background: the outbox and the events."""
        self.outbox.start()
        await self.events.start()

    async def close(self) -> None:
        """Finish what is followed in the background, send what is gathered, and stop."""
        await self.evaluations.close()
        await self._following.finish()
        await self.outbox.close()
        await self.events.close()

    # --- flows ----------------------------------------------------------------------------------------------------

    async def carry_out(self, steps: Flow[_T]) -> _T:
        """Take a flow from its beginning to its end, and return what it gives.

        Raises what a step raises (`StoreUnavailable`); what was written before holds what is left to do."""
        answer: Any = None
        try:
            while True:
                effect = steps.send(answer)
                answer = await self._steps[type(effect)](effect)
                came_round()
        except StopIteration as end:
            value: _T = end.value
            return value
        finally:
            steps.close()

    async def handle(self, steps: Flow[list[Document]]) -> None:
        """Carry a flow out, then follow what it left to follow: what takes long goes on by itself.

        The flow's own writes hold the intents of the rest, so whoever waits here need not wait for that: a fan-out
        or a cancel of many thousand tasks misses no deadline of a handler."""
        left = await self.carry_out(steps)
        if left:
            await self.follow_for_a_while(left)

    async def follow_for_a_while(
        self, documents: Sequence[Document], seconds: float = A_WHILE
    ) -> None:
        """Follow, for at most so many seconds; what takes longer goes on by itself."""
        following = start_task(self.follow(documents), "follow")
        try:
            await asyncio.wait({following}, timeout=seconds)
        finally:
            if not following.done():
                self._following.adopt(following)
        if following.done():
            following.result()

    async def follow(self, documents: Sequence[Document]) -> None:
        """Follow the intents of documents, and of all that comes of that. What has to wait for an evaluation that
        cannot be taken on now is left to the sweeper."""
        if documents:
            try:
                await self.carry_out(intents.follow(documents))
            except EvaluationBusy as error:
                log.info("what follows is put off", reason=str(error))

    def follow_soon(self, documents: Sequence[Document]) -> None:
        """Follow in the background. Should that fail, the sweeper does it."""
        self.soon(self.follow(documents))

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background that the sweeper does too, should it fail."""
        self._following.start(work, "follow")

    # --- reading --------------------------------------------------------------------------------------------------

    async def _get(self, effect: flow.Get[Document]) -> Document | None:
        document = await self.store.get(effect.kind, effect.id)
        if isinstance(document, JobDocument):
            self._jobs[document.id] = document
        return document

    async def job(self, job_id: str) -> JobDocument | None:
        """Return a job's fixed part, perhaps from the cache."""
        return self._jobs.get(job_id) or await self._get(flow.Get(JobDocument, job_id))  # type: ignore[return-value]  # a Job, by its kind

    async def _recall(self, effect: flow.Recall) -> JobDocument | None:
        return await self.job(effect.id)

    async def _find(self, effect: flow.Find[Document]) -> list[Document]:
        return await self.store.find(
            effect.kind, effect.where, effect.order, limit=effect.limit, without=effect.without
        )

    async def _standing(self, effect: flow.Standing) -> JobDocument | None:
        return await self._looks.look(effect.job_id)

    async def _count(self, effect: flow.Count[Document]) -> int:
        return await self.store.count(effect.kind, effect.where)

    async def _vars(self, effect: flow.Vars) -> dict[str, str]:
        return await self.store.vars(effect.job_id, effect.names, effect.restarts, effect.began)

    async def _now(self, _: flow.Now) -> int:
        return self.store.now()

    async def _lease(self, effect: flow.Lease) -> NodeDocument | None:
        node = self._leases.get(effect.node_id)
        if (
            node is not None
            and not node.closed
            and node.lease_until >= self.store.now() + task_runs.LEASE_LEFT
        ):
            return node
        node = await self.store.get(NodeDocument, effect.node_id)
        if node is not None:
            self._leases[node.id] = node
        return node

    async def _bounds(self, _: flow.AskBounds) -> Bounds:
        return self.bounds

    # --- writing --------------------------------------------------------------------------------------------------

    async def _insert(self, effect: flow.Insert) -> bool | None:
        try:
            new = await self.store.insert(effect.document)
        except SlotTaken:
            return None
        if new:
            await self.tell(effect.document)
        return new

    async def _insert_many(self, effect: flow.InsertMany) -> int:
        if not effect.documents:
            return 0
        new = await self.store.insert_many(effect.documents)
        if self.events.wanted:
            for document in effect.documents:
                await self.tell(document)
        return new

    async def _change(self, effect: Change[Document]) -> Document | None:
        image = await self.store.change(self.outbox.marks.with_mark(effect))
        if image is None:
            return None
        if isinstance(image, TaskDocument):
            self.outbox.marks.granted(image)
        elif isinstance(image, JobDocument):
            self._jobs[image.id] = image
        elif isinstance(image, NodeDocument):
            self._leases[image.id] = image
        self._mark_moved(image, effect)
        if "state" in effect.set:
            await self.tell(image)
        return image

    def _mark_moved(self, image: Document, effect: Change[Document]) -> None:
        above = image.parent_id if isinstance(image, JobDocument | TaskDocument) else None
        if above and not _MOVES.isdisjoint(effect.set):
            self._moved.add(above)

    def take_moved(self) -> set[str]:
        """Return the tasks below which something moved since this was last asked."""
        moved, self._moved = self._moved, set()
        return moved

    async def _change_first(self, effect: flow.ChangeFirst) -> TaskDocument | None:
        return await self.store.change_first(
            TaskDocument, effect.where, effect.order, effect.set, effect.add_then
        )

    async def _delete(self, effect: flow.Delete) -> int:
        if effect.kind is JobDocument:
            self._jobs.pop(str(effect.where.get("id")), None)
        return await self.store.delete(effect.kind, effect.where, effect.limit)

    async def _later(self, effect: flow.Later) -> None:
        self.outbox.write_later(effect.change)

    async def _apply(self, effect: flow.Apply) -> bool:
        if effect.change.kind is JobDocument:
            self._jobs.pop(effect.change.id, None)
        return bool(await self.store.change_many([effect.change]))

    async def _apply_many(self, effect: flow.ApplyMany) -> int:
        if not self.events.wanted:
            return await self.store.change_many(effect.changes)
        images = [await self._change(change) for change in effect.changes]  # type: ignore[arg-type]
        return sum(image is not None for image in images)

    async def _append_log(self, effect: flow.AppendLog) -> None:
        parts: Sequence[LogPartDocument] = effect.parts
        await self.store.append_log(parts)

    async def _drop_logs(self, effect: flow.DropLogs) -> None:
        await self.store.delete(
            LogPartDocument, {"task_id": effect.task_id, "run": Below(effect.run)}
        )

    async def _started(self, effect: flow.Started) -> None:
        """Have a job be RUNNING whose first task was granted: once for each job and coordinator.

        One that is still PENDING (whoever begins it has not said so yet) is looked at again the next time."""
        if effect.job_id in self._begun:
            return
        image = await self.carry_out(job_lifecycle.began(effect.job_id, effect.at))
        if image is None or image.state != JobState.PENDING:
            self._begun[effect.job_id] = True
        if image is not None and image.then:
            self.follow_soon([image])

    # --- telling --------------------------------------------------------------------------------------------------

    async def _publish(self, effect: flow.Publish) -> None:
        await self.outbox.publish_tasks(effect.tasks)

    async def _send(self, effect: flow.Send) -> None:
        await self.outbox.send(effect.node_id, effect.message)

    async def tell(self, document: Document) -> None:
        """Tell of the state of a job or task that was written, where somebody listens."""
        if not self.events.wanted:
            return
        job = await self.job(document.job_id) if isinstance(document, TaskDocument) else None
        self.events.tell(document, job)

    async def _noted(self, effect: flow.Noted) -> None:
        self.counts[effect.what] += 1
        log.info(effect.what.replace("_", " "), subject=effect.subject)
