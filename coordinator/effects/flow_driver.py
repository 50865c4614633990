"""The flow driver: carries out each effect that a flow yields, and sends the result back into it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec
import structlog
from cachetools import LRUCache

from coordinator.effects.batching import JobLooks
from coordinator.effects.evaluations import Evaluations
from coordinator.effects.events import Events
from coordinator.effects.fan_outs import FanOuts, place_held
from coordinator.effects.job_metrics import Measures, trace_end
from coordinator.effects.outbox import Outbox
from coordinator.engine import flow, intents, job_lifecycle, task_runs
from coordinator.engine.flow import Bounds, Flow
from coordinator.engine.new_documents import HOOK
from coordinator.store.port import Change, ResultsTooLarge, SlotTaken, Store, Unstorable
from shared.broker.port import Broker
from shared.errors import StoreUnavailable
from shared.expressions import Texts, TooManyTexts
from shared.model.documents import (
    Document,
    JobDocument,
    LogPartDocument,
    NodeDocument,
    TaskDocument,
    TombstoneDocument,
)
from shared.model.messages import MessageCodec
from shared.model.queries import Below
from shared.model.states import JobState
from shared.model.views.redacted import secrets_of
from shared.redaction import LONG_TEXT, is_heavy, prepare_redaction, prepare_text
from shared.supervision import Tasks, came_round, start_task
from shared.telemetry import traces
from shared.threads import in_thread

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

REMEMBERED_JOBS = 2_000
REMEMBERED_BYTES = 64 * 1024 * 1024
"""What the jobs that are kept at hand take, about."""

REMEMBERED_NODES = 10_000

_CHANGED_AT_ONCE = 50
"""Documents that are changed at a time where somebody is to be told of each."""

_PARTS_AT_ONCE = 1_000
"""Log parts that are deleted at a time."""

_FINISHES_WITHIN = 10.0
"""Seconds that what is followed has to come to its end when the process stops."""

A_WHILE = 4.0
"""Seconds that a handler waits for what follows from its message; less than its deadline."""

_MOVES = frozenset({"open", "progress", "position"})
"""Fields of a child or sub-job whose change may move the progress of what is above it."""


_ENCODED: Final = 8
"""An object takes about so many times as much memory as it does encoded."""

_SMALL: Final = 2_000
"""Bytes that the rest of a job takes, about."""


def _weight(job: JobDocument) -> int:
    """Return about how many bytes a job takes in memory: what is small in all of them is not looked at."""
    job = job.opened()
    big = (job.definition, job.inherited_secrets, job.result)
    return min(_ENCODED * len(msgspec.msgpack.encode(big)) + _SMALL, REMEMBERED_BYTES)


async def ready_to_hide(values: Collection[str]) -> None:
    """Have what looks for values made in a thread where they are many, before it is needed here."""
    if is_heavy(values):
        await in_thread(prepare_redaction, values)


async def _ready_to_redact(job: Document | None, document: Document | None = None) -> None:
    """Have what looks for a job's secrets made, and a long result of it or of a task searched in a thread, before that
    is needed here."""
    values = secrets_of(job) if isinstance(job, JobDocument) and not job.locked else []
    await ready_to_hide(values)
    if isinstance(document, JobDocument | TaskDocument):
        result = document.opened().result or ""
        if values and len(result) > LONG_TEXT:
            await in_thread(prepare_text, values, result)


class FlowDriver:
    """Runs flows. There is one for each coordinator; all its methods belong to one event loop."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        bounds: Bounds,
        codec: MessageCodec,
        measures: Measures | None = None,
    ) -> None:
        self.store = store
        self.bounds = bounds
        self.counts: Counter[str] = Counter()
        self.measures = measures or Measures()
        self._jobs: LRUCache[str, JobDocument] = LRUCache(REMEMBERED_BYTES, getsizeof=_weight)
        self._leases: LRUCache[str, NodeDocument] = LRUCache(REMEMBERED_NODES)
        self._begun: LRUCache[str, bool] = LRUCache(REMEMBERED_JOBS)
        self.fan_outs = FanOuts()
        self.evaluations = Evaluations(
            bounds.expression_steps, bounds.expression_bytes, self.fan_outs.waits
        )
        self.events = Events(broker, store.now, bounds.redaction_keys)
        self.outbox = Outbox(store, broker, codec, self._jobs, self.events, bounds.redaction_keys)
        self.outbox.on_changed = self._changed_by_outbox
        self._looks = JobLooks(store)
        self._moved: set[str] = set()
        self._following = Tasks()
        self._steps: dict[type, Callable[[Any], Awaitable[Any]]] = {
            flow.Get: self._get,
            flow.Recall: lambda effect: self.job(effect.id),
            flow.Find: self._find,
            flow.Count: lambda effect: self.store.count(effect.kind, effect.where),
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
            flow.Publish: lambda effect: self.outbox.publish_tasks(effect.tasks),
            flow.Send: lambda effect: self.outbox.send(effect.node_id, effect.message),
            flow.Vars: self._vars,
            flow.Evaluate: self.evaluations.evaluate,
            flow.AppendLog: self._append_log,
            flow.DropLogs: self._drop_logs,
            flow.GrowthTurn: lambda effect: self.fan_outs.turn(effect.user),
            flow.GrowthOver: self._growth_over,
            flow.Now: self._now,
            flow.Lease: self._lease,
            flow.Standing: lambda effect: self._looks.look(effect.job_id),
            flow.Started: self._started,
            flow.AskBounds: self._bounds,
            flow.Hide: lambda effect: ready_to_hide(effect.values),
            flow.Noted: self._noted,
        }

    async def start(self) -> None:
        """Start what runs in the background: the outbox and the events."""
        self.outbox.start()
        await self.events.start()

    async def close(self) -> None:
        """Finish what is followed in the background, send what is gathered, and stop."""
        await self.evaluations.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FINISHES_WITHIN):
                await self._following.finish()
        await self._following.cancel()  # what was written holds the intents of the rest
        await self.outbox.close()
        await self.events.close()

    # --- flows ----------------------------------------------------------------------------------------------------

    async def carry_out(self, steps: Flow[_T]) -> _T:
        """Take a flow from its beginning to its end, and return what it gives.

        Raises what a step raises (`StoreUnavailable`), which a flow gets to know only of what no store keeps
        (`Unstorable`); what was written before holds what is left to do."""
        answer: Any = None
        refused: Unstorable | None = None
        try:
            while True:
                effect = steps.send(answer) if refused is None else steps.throw(refused)
                answer, refused = None, None
                try:
                    answer = await self._steps[type(effect)](effect)
                except Unstorable as error:
                    refused = error
                came_round()
        except StopIteration as end:
            value: _T = end.value
            return value
        except BaseException:
            self.fan_outs.over()
            raise
        finally:
            steps.close()

    async def handle(self, steps: Flow[list[Document]]) -> None:
        """Carry a flow out, then follow what it left to follow: what takes long goes on by itself.

        The flow's own writes hold the intents of the rest, so whoever waits here need not wait for that: a fan-out
        or a cancel of many thousand tasks misses no deadline of a handler."""
        left = deque(await self.carry_out(steps))
        time = asyncio.get_running_loop().time
        until = time() + A_WHILE
        while left and time() < until:
            await self.follow_for_a_while([left.popleft()], until - time())
        if left:
            self.follow_soon(left)

    async def follow_for_a_while(
        self, documents: Sequence[Document], seconds: float = A_WHILE
    ) -> None:
        """Follow, for at most so many seconds; what takes longer, or waits for its turn, goes on by itself."""
        waits = asyncio.get_running_loop().create_future()
        token = place_held.set(waits)
        following = start_task(self.follow(documents), "follow")
        place_held.reset(token)
        try:
            await asyncio.wait(
                {following, waits}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            if not following.done():
                self._following.adopt(following)
        if following.done():
            following.result()

    async def follow(self, documents: Sequence[Document]) -> None:
        """Follow the intents of documents, and of all that comes of that. What fails, or has to wait for an evaluation
        that cannot be taken on now, is done later, as due work, and keeps no other from its turn."""
        for document in documents:
            try:
                await self.carry_out(intents.follow([document]))
            except StoreUnavailable:
                raise
            except Exception as error:
                log.info("what follows is put off", document=document.id, reason=repr(error))

    def follow_soon(self, documents: Sequence[Document]) -> None:
        """Follow in the background. Should that fail, it is done later, as due work."""
        self.soon(self.follow(documents))

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background that is done later too, should it fail."""
        self._following.start(work, "follow")

    def _changed_by_outbox(self, image: TaskDocument) -> None:
        if not image.active:
            self.measures.changed(image, {"state": image.state})
        if image.then:
            self.follow_soon([image])

    # --- reading --------------------------------------------------------------------------------------------------

    async def _get(self, effect: flow.Get[Document]) -> Document | None:
        document = await self.store.get(effect.kind, effect.id)
        if isinstance(document, JobDocument):
            self._jobs[document.id] = document
        return document

    async def job(self, job_id: str) -> JobDocument | None:
        """Return a job's fixed part, perhaps from the cache."""
        known = self._jobs.get(job_id)
        if known is not None:
            return known
        job = await self._get(flow.Get(JobDocument, job_id))
        assert job is None or isinstance(job, JobDocument)
        await _ready_to_redact(job)
        return job

    async def _find(self, effect: flow.Find[Document]) -> list[Document]:
        return await self.store.find(
            effect.kind, effect.where, effect.order, limit=effect.limit, without=effect.without
        )

    async def _vars(self, effect: flow.Vars) -> Texts:
        most = self.bounds.expression_bytes
        try:
            return Texts(
                await self.store.vars(
                    effect.job_id, effect.names, effect.restarts, effect.began, most
                )
            )
        except ResultsTooLarge as error:
            return TooManyTexts(str(error))

    async def _growth_over(self, _: flow.GrowthOver) -> None:
        self.fan_outs.over()

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
        document = effect.document
        try:
            if isinstance(document, JobDocument):
                new = await self.insert_job(document)
            else:
                new = await self.store.insert(document)
        except SlotTaken:
            return None
        if new:
            self.measures.inserted(effect.document)
            await self.tell(effect.document)
        return new

    async def insert_job(self, job: JobDocument) -> bool:
        """Store a job whose id follows from what it is made for; False where it is there, or was and is deleted."""
        if await self.store.get(TombstoneDocument, job.id) is not None:
            return False
        return await self.store.insert(job)

    async def _insert_many(self, effect: flow.InsertMany) -> int:
        if not effect.documents:
            return 0
        new = await self.store.insert_many(effect.documents)
        # Where some were there already, whoever died of the rest has counted them.
        if new == len(effect.documents):
            for document in effect.documents:
                self.measures.inserted(document)
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
            if self.events.observe is not None:
                self.events.observe(image, None)
        self._mark_moved(image, effect)
        self.measures.changed(image, effect.set)
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
        matched = await self.store.change_many([effect.change])
        self._measure_unread(effect.change, matched)
        return bool(matched)

    async def _apply_many(self, effect: flow.ApplyMany) -> int:
        if not self.events.wanted:
            matched = await self.store.change_many(effect.changes)
            if effect.changes:
                self._measure_unread(effect.changes[0], matched)
            return matched
        matched = 0
        for first in range(0, len(effect.changes), _CHANGED_AT_ONCE):
            some = effect.changes[first : first + _CHANGED_AT_ONCE]
            images = await asyncio.gather(*(self._change(change) for change in some))  # type: ignore[arg-type]
            matched += sum(image is not None for image in images)
            came_round()
        return matched

    def _measure_unread(self, change: Change[Any], matched: int) -> None:
        self.measures.changed_unread(change.set, matched, job=change.kind is JobDocument)

    async def _append_log(self, effect: flow.AppendLog) -> None:
        parts: Sequence[LogPartDocument] = effect.parts
        await self.store.append_log(parts)
        self.events.on_log(parts)

    async def _drop_logs(self, effect: flow.DropLogs) -> None:
        self.soon(self._logs_dropped(effect))

    async def _logs_dropped(self, effect: flow.DropLogs) -> None:
        where = {"task_id": effect.task_id, "run": Below(effect.run)}
        while await self.store.delete(LogPartDocument, where, _PARTS_AT_ONCE) == _PARTS_AT_ONCE:
            pass

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

    async def tell(self, document: Document) -> None:
        """Tell of the state of a job or task that was written, where somebody listens; trace its end."""
        hooked = any(each.do == HOOK for each in document.then)
        if not (self.events.wanted or traces() or hooked):
            return
        job = await self.job(document.job_id) if isinstance(document, TaskDocument) else None
        if self.events.wanted or hooked:
            await _ready_to_redact(job or document, document)
        if self.events.wanted:
            self.events.tell(document, job)
        trace_end(document, job)

    async def _noted(self, effect: flow.Noted) -> None:
        self.counts[effect.what] += 1
        log.info(effect.what.replace("_", " "), subject=effect.subject)
