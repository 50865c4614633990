"""What a simulated process sees of the store and the broker: every call is a step that takes time, and may go wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from shared.broker.memory import MemoryBroker, MemorySlot, MemorySubscription
from shared.broker.port import Delivery, DeliveryHandler, QueueInfo
from shared.errors import BrokerUnavailable, StoreUnavailable
from shared.model.documents import Document, JobDocument, TaskDocument
from shared.model.messages import Message, decode
from shared.model.queries import Change
from tests.simulation.loop import Pause, Process, at_once
from tests.simulation.slips import Slips
from tests.simulation.store import MemoryStore

_T = TypeVar("_T")

WRITES: Final = (
    "insert",
    "insert_many",
    "change",
    "change_many",
    "change_first",
    "delete",
    "append_log",
)
READS: Final = ("get", "get_many", "find", "count", "group_count", "overdue", "vars", "log_page")

CRASH_BEFORE, CRASH_AFTER = "crash before", "crash after"
FAIL_BEFORE, FAIL_AFTER = "fail before", "fail after"
STALL, STALL_CRASH, LONG_STALL = "stall", "stall, then crash", "long stall"
LOST, DOUBLED, DOUBLED_LATE = "lost", "doubled", "doubled late"
STEP_FAULTS: Final = (
    CRASH_BEFORE,
    CRASH_AFTER,
    FAIL_BEFORE,
    FAIL_AFTER,
    STALL,
    STALL_CRASH,
    LOST,
    DOUBLED,
    DOUBLED_LATE,
)
"""While a step stalls, somebody does something with what it is about."""

OF_PUBLISHING: Final = frozenset({LOST, DOUBLED, DOUBLED_LATE})
"""What may happen to a message alone. One that is doubled late comes again when others have overtaken it."""


class World(Protocol):
    """What the links tell, and ask, the rest of the simulation."""

    def step(self, process: Process, label: str) -> str | None:
        """Return what goes wrong with the next step of a process, of this label."""

    def kill(self, process: Process) -> None:
        """End a process at once."""

    def stalls(self, about: str) -> float:
        """Return how long a step stalls that is about a job or node; have something done with that meanwhile."""

    def publishing(self, process: Process, message: Message) -> None:
        """Hear of what a process is about to publish."""

    def published(self, queue: str, message: Message) -> None:
        """Hear of what was published."""

    def heard_in_vain(self, process: Process, message: Message) -> None:
        """Hear of what a process takes of a queue that has no store."""


class Links:
    """How steps go: their latencies, and what is wrong now."""

    def __init__(self, chance: random.Random, world: World, slips: Slips) -> None:
        self.chance = chance
        self.slips = slips
        self._luck = chance.random
        self.world = world
        self.store_away = False
        self.broker_away = False
        self.held: set[str] = set()
        """Queues of which nobody is given anything."""

    async def make(
        self,
        process: Process,
        label: str,
        work: Callable[[], Coroutine[Any, Any, _T]],
        error: Callable[[], Exception | None],
        refused: type[Exception],
        about: str = "",
    ) -> _T:
        """Make one step: the time on the way there, what the server does, and the time on the way back."""
        fault = self.world.step(process, label)
        if fault == CRASH_BEFORE:
            await self._crash(process)
        if fault in (STALL, STALL_CRASH):
            await asyncio.sleep(self.world.stalls(about))
        await Pause(0.0003 + (0.003 - 0.0003) * self._luck())
        if (away := error()) is not None:
            await asyncio.sleep(0.5)
            raise away
        if fault == FAIL_BEFORE:
            raise refused("simulated: refused")
        answer = self._served(fault, work)
        await Pause(0.0003 + (0.003 - 0.0003) * self._luck())
        if fault in (CRASH_AFTER, STALL_CRASH):
            await self._crash(process)
        if fault == FAIL_AFTER:
            raise refused("simulated: done, and told to have failed")
        done: _T = answer
        return done

    def _served(self, fault: str | None, work: Callable[[], Coroutine[Any, Any, _T]]) -> Any:
        """Have the server do what is asked for: not at all, or twice, where that is what goes wrong."""
        answer: Any = None
        for _ in range(_TIMES.get(fault, 1)):
            answer = at_once(_SERVER, work())
        if fault == DOUBLED_LATE:
            later = self.chance.uniform(6.0, 20.0)
            loop = asyncio.get_running_loop()
            loop.call_later(later, lambda: at_once(_SERVER, work()), context=_SERVER.context)
        return answer

    async def read(
        self, process: Process, name: str, error: Callable[[], Exception | None]
    ) -> None:
        """Let a read take its time: it may be the last thing that its process does, or take long."""
        fault = self.world.step(process, f"read {name}")
        if fault == CRASH_BEFORE:
            await self._crash(process)
        if fault == STALL:
            await asyncio.sleep(self.world.stalls(""))
        await Pause(0.0005 + (0.005 - 0.0005) * self._luck())
        if (away := error()) is not None:
            await asyncio.sleep(0.5)
            raise away
        if fault == FAIL_BEFORE:
            raise StoreUnavailable("simulated: refused")

    async def _crash(self, process: Process) -> None:
        self.world.kill(process)
        await asyncio.get_running_loop().create_future()  # it never goes on


_SERVER: Final = Process("server")
_TIMES: Final[Mapping[str | None, int]] = {LOST: 0, DOUBLED: 2}
"""How often what is asked for is done, where that is not once."""


def label_of(name: str, args: Sequence[Any], fields: Mapping[str, Any]) -> str:
    """Return what a call of the store is, in few words: `change Task:COMPLETED then ended`."""
    first = args[0] if args else next(iter(fields.values()), None)
    if isinstance(first, Change):
        return f"{name} {_of_change(first)}"
    if isinstance(first, Document):
        return f"{name} {_of_document(first)}"
    if isinstance(first, list | tuple) and first:
        return f"{name} {_of_change(first[0]) if isinstance(first[0], Change) else _of_document(first[0])}"
    return f"{name} {first.__name__.removesuffix('Document')}" if isinstance(first, type) else name


def _of_document(document: Any) -> str:
    kind = type(document).__name__.removesuffix("Document")
    if isinstance(document, TaskDocument):
        return f"{kind} {document.kind}"
    if isinstance(document, JobDocument):
        return f"{kind} {'sub' if document.parent_id or document.detached_from else 'top'}"
    return kind


def _of_change(change: Change[Any]) -> str:
    kind = change.kind.__name__.removesuffix("Document")
    state = f":{change.set['state']}" if "state" in change.set else ""
    state = state or (":closed" if change.set.get("closed") else "")
    state = state or (f" {change.set['kind']}" if "kind" in change.set else "")
    then = "".join(f" then {each.do}" for each in change.add_then)
    done = "".join(f" done {each.split(' ')[0].split(':')[0]}" for each in change.drop_then)
    return f"{kind}{state}{then}{done}"


def about(args: Sequence[Any]) -> str:
    """Return the id of the job, task or node that a call of the store is about; of the first, where of many. A grant is
    about the node that gets it."""
    first = args[0] if args else None
    if isinstance(first, list | tuple) and first:
        first = first[0]
    if isinstance(first, TaskDocument):
        return first.job_id
    if isinstance(first, JobDocument):
        return first.parent_id or first.id
    if isinstance(first, Change):
        return str((first.set.get("claim_beat") and first.set.get("node_id")) or first.id)
    return first.id if isinstance(first, Document) else ""


class StoreLink:
    """One process's store."""

    def __init__(self, inner: MemoryStore, process: Process, links: Links) -> None:
        self._inner = inner
        self._process = process
        self._links = links

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def slipped() -> Any:
            return self._links.slips.answer()

        async def write(*args: Any, **fields: Any) -> Any:
            slips = self._links.slips.slips(name, args)
            return await self._links.make(
                self._process,
                label_of(name, args, fields),
                slipped if slips else lambda: method(*args, **fields),
                self._away,
                StoreUnavailable,
                about(args),
            )

        async def read(*args: Any, **fields: Any) -> Any:
            await self._links.read(self._process, name, self._away)
            found = await method(*args, **fields)
            if found and self._links.slips.slips(name, args):
                return self._links.slips.answer()
            return found

        made = write if name in WRITES else read if name in READS else method
        setattr(self, name, made)
        return made

    async def ping(self) -> None:
        if (away := self._away()) is not None:
            raise away

    def _away(self) -> Exception | None:
        gone = self._links.store_away or self._process.deprived
        return StoreUnavailable("simulated: the store is away") if gone else None


class BrokerLink:
    """One process's broker."""

    def __init__(self, inner: MemoryBroker, process: Process, links: Links) -> None:
        self._inner = inner
        self._process = process
        self._links = links
        self._callbacks: list[Callable[[bool], None]] = []
        self._consumers: list[MemorySubscription] = []
        self._slots: list[SlotLink] = []
        self._last: asyncio.Future[None] | None = None
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    # --- its link -------------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """Have the link go: what is on loan goes back."""
        self.cut = True
        for consumer in self._consumers:
            self._inner.detach(consumer)
            consumer.take_back_all()
        for slot in self._slots:
            slot.lose()

    def mend(self) -> None:
        """Have the link back: consumers go on."""
        self.cut = False
        for consumer in self._consumers:
            self._attach(consumer)
        for slot in self._slots:
            slot.mend()
        for callback in self._callbacks:
            self._process.run(callback, False)

    def _attach(self, consumer: MemorySubscription) -> None:
        if consumer in self._inner._subscriptions and consumer.name not in self._links.held:
            self._inner.attach(consumer)

    def hold(self, queue: str) -> None:
        """Be given nothing of a queue."""
        for consumer in self._consumers:
            if consumer.name == queue:
                self._inner.detach(consumer)

    def let_go(self, queue: str) -> None:
        """Be given what is in a queue."""
        for consumer in self._consumers:
            if consumer.name == queue and not self.cut:
                self._attach(consumer)

    def close_for_good(self) -> None:
        """The process is dead."""
        self.lose()
        for consumer in self._consumers:
            self._inner.forget(consumer)
        for slot in self._slots:
            self._inner.forget(slot.inner)

    def _away(self) -> Exception | None:
        gone = self.cut or self._links.broker_away
        return BrokerUnavailable("simulated: the broker is away") if gone else None

    # --- the port -------------------------------------------------------------------------------------------------

    def on_connected(self, callback: Callable[[bool], None]) -> None:
        self._callbacks.append(callback)
        callback(True)

    def _must_be_there(self) -> None:
        if (away := self._away()) is not None:
            raise away

    async def ping(self) -> None:
        self._must_be_there()

    async def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        self._must_be_there()
        return await self._inner.queues(names)

    async def queue(self, name: str) -> QueueInfo | None:
        self._must_be_there()
        return await self._inner.queue(name)

    async def ready(self, name: str) -> int | None:
        self._must_be_there()
        return await self._inner.ready(name)

    async def delete_queue(self, name: str, *, unused: bool = False) -> bool:
        self._must_be_there()
        return await self._inner.delete_queue(name, unused=unused)

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        priority: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = decode(body)
        kind = type(message).__name__

        self._links.world.publishing(self._process, message)

        async def put() -> None:
            if kind == "Beat" and self._process.hushed:
                return
            await self._inner.publish(queue, body, priority=priority, headers=headers)
            self._links.world.published(queue, message)

        where = f"x-node {kind}" if queue.startswith("x-") else queue
        where = "probe" if kind == "PulseProbe" else where
        about = str(getattr(message, "job_id", ""))
        await self._links.make(
            self._process, f"publish {where}", put, self._away, BrokerUnavailable, about
        )

    async def publish_event(self, body: bytes) -> None:
        if self._away() is None:
            await self._inner.publish_event(body)

    async def subscribe(
        self, queue: str, handler: DeliveryHandler, *, prefetch: int
    ) -> MemorySubscription:
        while (away := self._away()) is not None:
            del away
            await asyncio.sleep(0.5)

        async def hears(delivery: Delivery) -> None:
            if self._links.store_away or self._process.deprived:
                self._links.world.heard_in_vain(self._process, decode(delivery.body))
            await handler(delivery)

        made = await self._inner.subscribe(queue, hears, prefetch=prefetch)
        self._consumers.append(made)
        if queue in self._links.held:
            self._inner.detach(made)
        return made

    async def slot(self, queue: str) -> SlotLink:
        made = SlotLink(await self._inner.slot(queue), self)
        self._slots.append(made)
        return made


class SlotLink:
    """A slot that waits while its link is cut."""

    def __init__(self, inner: MemorySlot, link: BrokerLink) -> None:
        self.inner = inner
        self.mended = asyncio.Event()
        self._link = link

    def lose(self) -> None:
        self.mended.clear()
        self.inner._broker.detach(self.inner)
        self.inner.take_back_all()

    def mend(self) -> None:
        """Go on, where somebody waits."""
        self.mended.set()
        if self.inner._waiter is not None:
            self.inner._broker.attach(self.inner)

    async def take(self) -> Delivery:
        while self._link.cut:
            self.mended.clear()
            await self.mended.wait()
        return await self.inner.take()

    async def pause(self) -> None:
        await self.inner.pause()

    async def close(self) -> None:
        await self.inner.close()
