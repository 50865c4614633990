"""A whole engine without processes: a real broker, a store (SQLite or in memory), coordinators and workers that a test
moves by hand.

Nothing happens by itself: messages are handled when a test lets things `settle`, time goes on when it says so.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from coordinator.consumers.queue_consumers import READ_BY, MessageHandlers
from coordinator.due.due_work import DueWork
from coordinator.due.pulse_probes import PulseProbes
from coordinator.due.sweeper import Sweeper
from coordinator.effects import FlowDriver
from coordinator.effects.batching import Batcher
from coordinator.engine import job_ends, job_lifecycle, new_documents, pulse
from coordinator.engine.flow import Bounds
from coordinator.store.port import Store
from shared.broker.memory import MemoryBroker
from shared.broker.port import Broker, Delivery, Slot
from shared.errors import StoreUnavailable, Unreadable
from shared.model import language
from shared.model.documents import MICROS_PER_SECOND, JobDocument, TaskDocument
from shared.model.messages import JobChanged, MessageCodec
from shared.model.queries import In
from shared.model.queues import JOBS_QUEUE, LOGS_QUEUE
from tests.datastores import sqlite_file
from tests.faults.ports import Died
from tests.settings import default_bounds
from tests.simulation.store import MemoryData, MemoryStore
from tests.unit.engine.audit import Audit, Book, MemoryBook, SqliteBook
from tests.unit.engine.clock import Clock, ClockedStore
from tests.unit.engine.hands import Run, Worker

HOLD = "\0hold"
Outcome = Callable[[Run], str | Awaitable[str | None] | None]
"""What becomes of a run: None (it succeeds), its error, or `HOLD`: it goes on."""

QUEUES = [name for name in READ_BY if name != LOGS_QUEUE]
ROUNDS = 2_000
"""So often something may move before a test says that it never comes to rest."""


class Coordinator:
    """A coordinator whose queues are taken, and whose timers tick, when the test says so."""

    def __init__(
        self, store: Store, broker: Broker, bounds: Bounds, codec: MessageCodec, name: str
    ) -> None:
        self.name = name
        self.store = store
        self.broker = broker
        self.codec = codec
        self.driver = FlowDriver(store, broker, bounds, codec)
        self.probes = PulseProbes(self.driver, broker, codec, name)
        self.handlers = MessageHandlers(self.driver, self.probes)
        self.sweeper = Sweeper(self.driver, broker, 5.0)
        self.due = DueWork(self.driver)
        self.loses_messages = False
        """Whether what it was handling when it died is gone, and not given back."""
        self._slots: dict[str, Slot] = {}

    @property
    def dead(self) -> bool:
        luck = getattr(self.store, "luck", None)
        return luck is not None and luck.dead

    async def work(self) -> bool:
        """Handle what there is; return whether there was anything."""
        moved = False
        while await self.handle_one():
            moved = True
        return await self.flush() or moved

    async def sweep(self) -> bool:
        """Sweep, and release what is due."""
        await self.due.overdue.look()
        await self.due.overdue.finish()
        await self.sweeper.sweep()
        await self.due.release()
        return True

    async def pulse(self) -> bool:
        """Take a probe of each queue that came a handler's deadline ago."""
        taken = self.store.now() - self.driver.bounds.handler_deadline
        for queue in pulse.PROBED:
            await self.driver.carry_out(pulse.probe_taken(queue, taken, taken))
        return True

    async def handle_one(self) -> bool:
        """Handle the next message of any of its queues; return whether there was one."""
        for queue in QUEUES:
            figures = await self.broker.queue(queue)
            if figures is not None and figures.size:
                slot = self._slots.get(queue) or await self.broker.slot(queue)
                self._slots[queue] = slot
                await self._handle(queue, await slot.take())
                return True
        return False

    async def _handle(self, queue: str, delivery: Delivery) -> None:
        try:
            await self.handlers.handle(queue, self.codec.decode(delivery.body))
        except Unreadable as error:
            await delivery.bury(str(error))
        except StoreUnavailable:
            await delivery.requeue()
        except Died:
            await (delivery.ack() if self.loses_messages else delivery.requeue())
            raise
        else:
            await delivery.ack()

    async def flush(self) -> bool:
        """Do what is gathered or goes on in the background; return whether there was anything."""
        moved = bool(self.driver._following)
        await self.driver._following.finish()
        outbox = self.driver.outbox
        return await _flushed(outbox._later) | await _flushed(outbox._stored) | moved

    async def abandon(self) -> None:
        """Die: whatever was gathered is gone."""
        await self.due.close()
        await self.driver._following.cancel()
        await self.driver.evaluations.close()
        for slot in self._slots.values():
            await slot.close()


async def _flushed(batcher: Batcher[Any]) -> bool:
    items, batcher._items = batcher._items, []
    if items:
        await batcher._flush(items)
    return bool(items)


class World:
    """Everything there is: its store a file in `folder`, or in memory where there is none."""

    def __init__(self, folder: Path | None, bounds: Bounds) -> None:
        self.clock = Clock()
        self.codec = MessageCodec()
        self.bounds = bounds
        self.store, self._open_book = self._store_in(folder)
        self.broker = MemoryBroker(
            node_expiry=3600.0, clock=lambda: self.clock.now / MICROS_PER_SECOND
        )
        self.wrap: Callable[[], tuple[Store, Broker]] = lambda: (self.store, self.broker)
        """What a new coordinator is given as its store and broker."""
        self.coordinators: list[Coordinator] = []
        self.workers: list[Worker] = []
        self.root = ""
        """The job that a test is about, where it has one."""
        self.audit: Audit
        self._book: Book
        self._numbers = itertools.count(1)

    def _store_in(self, folder: Path | None) -> tuple[Store, Callable[[], Book]]:
        if folder is None:
            data = MemoryData()
            return MemoryStore(data, clock=lambda: self.clock.now), partial(MemoryBook, data)
        path = sqlite_file(folder)
        return ClockedStore(path, self.clock), partial(SqliteBook, path)

    async def start(self) -> None:
        await self.store.start()
        self._book = self._open_book()
        self.audit = Audit(self._book)
        await self.broker.start()
        self.coordinator()

    async def close(self) -> None:
        for coordinator in self.coordinators:
            await coordinator.abandon()
        await self.broker.close()
        self._book.close()
        await self.store.close()

    # --- who there is ---------------------------------------------------------------------------------------------

    def coordinator(self) -> Coordinator:
        """Add a coordinator."""
        store, broker = self.wrap()
        name = f"coordinator-{next(self._numbers)}"
        made = Coordinator(store, broker, self.bounds, self.codec, name)
        self.coordinators.append(made)
        return made

    async def replace(self, coordinator: Coordinator) -> Coordinator:
        """A coordinator dies, another one comes."""
        self.coordinators.remove(coordinator)
        await coordinator.abandon()
        return self.coordinator()

    @property
    def driver(self) -> FlowDriver:
        return self.coordinators[0].driver

    async def worker(self, name: str = "w", *, slots: int = 4, **queues: int) -> Worker:
        """Add a worker with `slots` on `default` and more on other queues."""
        worker = Worker(self.broker, self.codec, name, {"default": slots, **queues})
        self.workers.append(worker)
        await worker.start()
        await self.settle()
        return worker

    # --- commands -------------------------------------------------------------------------------------------------

    async def submit(self, *tasks: dict[str, Any], told: bool = True, **fields: Any) -> str:
        """Store a job and say so (or have the message lost); return its id."""
        definition = msgspec.convert(
            {"name": "job", "tasks": list(tasks), **fields}, language.JobDefinition
        )
        made = new_documents.new_job(definition, f"job{next(self._numbers):029}", self.clock.now)
        made = job_lifecycle.with_hooks(made)
        assert await self.store.insert(made)
        if told:
            await self.broker.publish(JOBS_QUEUE, self.codec.encode(JobChanged(job_id=made.id)))
        return made.id

    async def cancel(self, job_id: str) -> bool:
        return await self._command(job_ends.cancelled_by_user(await self.job(job_id)))

    async def restart(self, job_id: str) -> bool:
        return await self._command(job_lifecycle.restarted_by_user(await self.job(job_id)))

    async def delete(self, job_id: str) -> bool:
        return await self._command(job_ends.marked_for_removal(job_id))

    async def _command(self, flow: Any) -> bool:
        coordinator = self.coordinators[0]
        stored: list[Any] = []

        async def command() -> bool:
            image = await coordinator.driver.carry_out(flow)
            if image:
                stored.extend(image if isinstance(image, list) else [image])
                coordinator.driver.follow_soon(stored)
            return True

        await self.guarded(coordinator, command())
        return bool(stored)

    # --- moving on ------------------------------------------------------------------------------------------------

    async def settle(self) -> bool:
        """Handle messages until none is left; return whether there were any."""
        moved = False
        for _ in range(ROUNDS):
            if not await self._moved():
                return moved
            moved = True
        raise AssertionError("messages go round for ever")

    async def guarded(self, coordinator: Coordinator, work: Awaitable[bool]) -> bool:
        """Have a coordinator do something; should it die of that, another one comes."""
        try:
            moved = await work
        except Died:
            moved = True
        except StoreUnavailable:
            moved = False
        if coordinator.dead and coordinator in self.coordinators:
            await self.replace(coordinator)
            return True
        return moved

    async def _moved(self) -> bool:
        moved = False
        for coordinator in list(self.coordinators):
            moved |= await self.guarded(coordinator, coordinator.work())
        for worker in self.workers:
            if worker.alive:
                moved |= bool(await worker.hear())
        return moved

    async def run(self, outcome: Outcome = lambda _: None) -> None:
        """Let workers take, run and end whatever there is, until nothing moves."""
        for _ in range(ROUNDS):
            moved = await self.settle()
            for worker in self._alive():
                moved |= bool(await worker.take())
            moved |= await self.settle()
            for worker in self._alive():
                for run in worker.running:
                    moved |= await self._ended(worker, run, outcome)
            if not moved:
                self.audit.check()
                return
        raise AssertionError("tasks go round for ever")

    async def _ended(self, worker: Worker, run: Run, outcome: Outcome) -> bool:
        error = outcome(run)
        if inspect.isawaitable(error):
            error = await error
        if error == HOLD or run.nonce not in worker.runs:
            return False
        await worker.end(run, error, result=run.name)
        return True

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    async def tick(self, seconds: float = 5.0) -> None:
        """Let time go on by less than a beat: everybody beats, probes come through, timers are worked off."""
        self.clock.advance(seconds)
        for worker in self._alive():
            await worker.beat()
            await worker.ask_again()
        await self.settle()
        await self.pulse()
        await self.sweep()
        await self.settle()

    async def pulse(self) -> None:
        """Let a probe through each queue, taken a handler's deadline ago."""
        await self.guarded(self.coordinators[0], self.coordinators[0].pulse())

    async def sweep(self) -> None:
        """Have every coordinator sweep, and release what is due."""
        for coordinator in list(self.coordinators):
            await self.guarded(coordinator, coordinator.sweep())

    async def rest(self, seconds: float, outcome: Outcome = lambda _: None) -> None:
        """Let time go on until nothing is left to do, at most so long; then check that all is well."""
        await self.run(outcome)
        for _ in range(int(seconds / 5)):
            if await self._at_rest():
                break
            await self.tick()
            await self.run(outcome)
        try:
            await self.check_at_rest()
        except AssertionError as error:
            error.add_note(await self.described())
            raise

    async def described(self) -> str:
        """Say where all jobs and tasks stand."""
        lines = []
        for job in await self.store.find(JobDocument, {}, ("created_at",)):
            intents = [what.id for what in job.then]
            lines.append(
                f"{job.id} {job.state} at {job.position} of restart {job.restarts} {intents}"
            )
            for task in await self.tasks(job.id):
                intents = [what.id for what in task.then]
                lines.append(
                    f"  {task.path} {task.kind} {task.name} restart {task.restarts} attempt {task.attempt} "
                    f"run {task.run} {task.state} hold={task.hold} open={task.open} slot={task.slot} "
                    f"window={task.window} of {task.window_of} node={task.node_id} nonce={task.nonce} "
                    f"lost={task.lost} {task.lost_by} expanded={task.expanded} {intents}"
                )
        return "\n".join([*lines, str(self.counts())])

    async def _at_rest(self) -> bool:
        busy = await self.store.find(TaskDocument, {"open": True}, limit=1)
        active = In(("PENDING", "SCHEDULED", "RUNNING"))
        busy_jobs = await self.store.find(JobDocument, {"state": active}, limit=1)
        late = self.clock.now + 1_000 * MICROS_PER_SECOND
        overdue = [
            *(await self.store.overdue(JobDocument, late, 1)),
            *(await self.store.overdue(TaskDocument, late, 1)),
        ]
        return not busy and not busy_jobs and not overdue

    async def heal(self, seconds: float = 90.0, outcome: Outcome = lambda _: None) -> None:
        """Let time go on, and workers work, until all is well."""
        for _ in range(int(seconds / 5)):
            await self.tick()
            await self.run(outcome)

    # --- looking --------------------------------------------------------------------------------------------------

    async def job(self, job_id: str) -> JobDocument:
        job = await self.store.get(JobDocument, job_id)
        assert job is not None
        return job

    async def state(self, job_id: str) -> str:
        return (await self.job(job_id)).state

    async def tasks(self, job_id: str) -> list[TaskDocument]:
        return await self.store.find(
            TaskDocument, {"job_id": job_id}, ("position", "depth", "created_at")
        )

    async def task(self, job_id: str, name: str) -> TaskDocument:
        """The last attempt of the last restart of the task with this name."""
        named = [task for task in await self.tasks(job_id) if task.name == name]
        assert named, f"no task {name}"
        return max(named, key=lambda task: (task.restarts, task.attempt))

    async def states(self, job_id: str) -> dict[str, str]:
        """The state of each task of a job by its path, the last attempt of the last restart."""
        found = sorted(await self.tasks(job_id), key=lambda task: (task.restarts, task.attempt))
        return {task.path: task.state for task in found}

    async def subjobs(self, parent: TaskDocument) -> list[JobDocument]:
        return await self.store.find(JobDocument, {"parent_id": parent.id})

    def counts(self) -> dict[str, int]:
        """What the coordinators have counted."""
        total: dict[str, int] = {}
        for coordinator in self.coordinators:
            for what, count in coordinator.driver.counts.items():
                total[what] = total.get(what, 0) + count
        return total

    async def check_at_rest(self) -> None:
        """Check that nothing is left half done, and that the sweeper finds nothing to do."""
        self.audit.check()
        all_jobs = {job.id: job for job in await self.store.find(JobDocument, {})}
        for job in all_jobs.values():
            assert job.state in ("COMPLETED", "FAILED", "CANCELLED"), (job.state, job.position)
            assert not job.then, job.then
        by_job: dict[str, list[TaskDocument]] = {}
        for task in await self.store.find(TaskDocument, {}):
            assert not task.active, (task.path, task.state, task.hold)
            assert not task.open, (task.path, task.state)
            assert not task.then, (task.path, task.then)
            by_job.setdefault(task.job_id, []).append(task)
        for job in all_jobs.values():
            check_end(job, by_job.get(job.id, []))
        assert max(self.audit.ends().values(), default=0) <= 1
        before, n = self.counts(), len(self.audit.entries())
        for _ in range(3):
            await self.tick()
        swept = {
            what: count - before.get(what, 0)
            for what, count in self.counts().items()
            if what.startswith("swept")
        }
        assert not any(swept.values()), swept
        assert len(self.audit.entries()) == n


def check_end(job: JobDocument, tasks: list[TaskDocument]) -> None:
    """Check that a completed job is what its tasks say."""
    if job.state != "COMPLETED":
        return
    assert job.position == job.task_count + 1
    for position in range(1, job.task_count + 1):
        below = [task for task in tasks if task.position == position]
        assert below, f"nothing ran at position {position}"
        counted = max(task.restarts for task in below)
        last: dict[str, TaskDocument] = {}
        for task in sorted(below, key=lambda task: task.attempt):
            if task.restarts == counted:
                last[task.path] = task
        assert str(position) in last
        for task in last.values():
            assert task.state in ("COMPLETED", "SKIPPED"), (task.path, task.state)


@asynccontextmanager
async def world_at(
    folder: Path | None, prepare: Callable[[World], None] = lambda _: None, **bounds: Any
) -> AsyncIterator[World]:
    """Open a world whose store lies in `folder` (None: in memory), `prepare`d before its first coordinator comes."""
    world = World(folder, default_bounds(**bounds))
    prepare(world)
    await world.start()
    try:
        yield world
    finally:
        await world.close()


def step(name: str, **fields: Any) -> dict[str, Any]:
    """A container task."""
    return {"name": name, "run": "true", **fields}
