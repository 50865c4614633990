"""Any history: jobs of any shape, workers that freeze, die, and lose messages, coordinators that stop in the middle of
a decision, users who cancel and restart. Every promise that can be checked is, after each step; in the end all heals.

`HAULIER_HYPOTHESIS_EXAMPLES` says how many histories are tried; more than the few of every run are drawn at random.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.engine import (
    beats,
    intents,
    job_ends,
    job_lifecycle,
    progress,
    task_runs,
)
from coordinator.engine.flow import Flow, get
from coordinator.store.port import Store
from shared.broker.port import Broker, Delivery
from shared.errors import StoreUnavailable, Unreadable
from shared.model.documents import JobDocument, NodeDocument, TaskDocument
from shared.model.messages import Beat, Claim, HandedBack, JobChanged, Message, Progressed, RunEnded
from shared.model.queues import (
    CLAIMS_QUEUE,
    COMPLETED_QUEUE,
    ERROR_QUEUE,
    HEARTBEAT_QUEUE,
    JOBS_QUEUE,
    PROGRESS_QUEUE,
)
from tests.faults.ports import FaultyBroker, FaultyStore, Luck, Mishap
from tests.faults.scenarios import each, parallel, retried, skipped, sub
from tests.settings import default_bounds
from tests.unit.engine.hands import Run, Worker
from tests.unit.engine.steps import Stepper
from tests.unit.engine.world import Coordinator, World, check_end, step

T = TypeVar("T")

WANTED = int(os.environ.get("HAULIER_HYPOTHESIS_EXAMPLES", "0"))
SLOW_QUEUES = (
    JOBS_QUEUE,
    CLAIMS_QUEUE,
    COMPLETED_QUEUE,
    ERROR_QUEUE,
    HEARTBEAT_QUEUE,
    PROGRESS_QUEUE,
)
LOSSY = (CLAIMS_QUEUE, HEARTBEAT_QUEUE, PROGRESS_QUEUE)

leaf = st.sampled_from(
    [step("a"), step("b"), skipped("s"), step("bad"), retried("flaky"), step("v", var="v")]
)


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=2)
    return st.one_of(
        several.map(lambda tasks: parallel(*tasks)),
        st.builds(
            lambda count, concurrency, task: each(f"1..{count}", task, concurrency=concurrency),
            st.integers(1, 3),
            st.integers(0, 2),
            inner,
        ),
        st.builds(
            lambda tasks, detached: sub(*tasks, detached=detached),
            several,
            st.booleans(),
        ),
    )


small = st.one_of(leaf, leaf, nested(leaf))
shape = st.lists(st.one_of(leaf, nested(small)), min_size=1, max_size=3)
"""A few tasks, nested twice at most: what is deeper takes long and shows no more."""
few = st.integers(0, 3)
number = st.integers(0, 20)


def outcome(run: Run) -> str | None:
    if run.name == "bad" or (run.name == "flaky" and run.message.attempt == 1):
        return "no"
    return None


def flow_of(message: Message) -> Flow[Any]:
    """Return what a coordinator does with a message, follow-ups included."""
    match message:
        case JobChanged(job_id=job_id):
            job = yield from get(JobDocument, job_id)
            left: Any = [job] if job is not None else []
        case Claim():
            left = yield from task_runs.on_claim(message)
        case RunEnded():
            left = yield from task_runs.on_run_ended(message)
        case HandedBack():
            left = yield from task_runs.on_handed_back(message)
        case Beat():
            left = yield from beats.on_beat(message)
        case Progressed():
            left = yield from progress.on_progress(message)
        case _:
            raise AssertionError(message)
    yield from intents.follow(left)


class Slow:
    """A coordinator stuck in the middle of a decision, with the message that it is about."""

    def __init__(
        self, coordinator: Coordinator, stepper: Stepper, delivery: Delivery | None
    ) -> None:
        self.coordinator = coordinator
        self.stepper = stepper
        self.delivery = delivery


class History(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(
            tempfile.mkdtemp(prefix="haulier-test-", dir=memory if memory.is_dir() else None)
        )
        self.runner = asyncio.Runner()
        self.world = World(self.folder, default_bounds(job_window=3))
        self.lucks: list[Luck] = []
        self.slow: list[Slow] = []
        self.jobs: list[str] = []
        self.said: list[tuple[str, Message]] = []
        """Messages of workers that may come again."""
        self.kept: list[Message] = []
        """Beats that are late."""
        self.workers_made = 0
        self.checked = 0
        self.world.wrap = self.wrapped

    def wrapped(self) -> tuple[Store, Broker]:
        luck = Luck()
        self.lucks.append(luck)
        return FaultyStore(self.world.store, luck), FaultyBroker(self.world.broker, luck)

    def do(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def teardown(self) -> None:
        try:
            self.do(self.ends_well())
        finally:
            if self.world.coordinators:
                self.do(self.world.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    # --- who is there ---------------------------------------------------------------------------------------------

    @initialize(tasks=shape)
    def begin(self, tasks: list[dict[str, Any]]) -> None:
        self.do(self.world.start())
        self.world.coordinator()
        self.add_worker()
        self.jobs.append(self.do(self.world.submit(*tasks)))
        self.take(0, ask=True, answered=True)
        self.take(0, ask=True, answered=True)

    def add_worker(self) -> None:
        self.workers_made += 1
        worker = Worker(
            self.world.broker, self.world.codec, f"w{self.workers_made}", {"default": 2}
        )
        self.world.workers.append(worker)
        self.do(worker.start())

    def one(self, which: int) -> Coordinator:
        return self.world.coordinators[which % len(self.world.coordinators)]

    def worker(self, which: int) -> Worker:
        alive = [worker for worker in self.world.workers if worker.alive]
        return alive[which % len(alive)]

    async def guard(self, coordinator: Coordinator, work: Awaitable[Any]) -> None:
        async def quietly() -> bool:
            await work
            return True

        await self.world.guarded(coordinator, quietly())
        self.slow = [slow for slow in self.slow if not slow.coordinator.dead]

    # --- users ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(tasks=shape, told=st.booleans())
    def submit(self, tasks: list[dict[str, Any]], told: bool) -> None:
        self.jobs.append(self.do(self.world.submit(*tasks, told=told)))

    @rule(which=few, followed=st.booleans())
    def cancel(self, which: int, followed: bool) -> None:
        self.do(
            self._command(job_ends.cancelled_by_user, self.jobs[which % len(self.jobs)], followed)
        )

    @rule(which=few, followed=st.booleans())
    def restart(self, which: int, followed: bool) -> None:
        self.do(
            self._command(
                job_lifecycle.restarted_by_user, self.jobs[which % len(self.jobs)], followed
            )
        )

    async def _command(
        self,
        command: Callable[[JobDocument], Flow[JobDocument | None]],
        job_id: str,
        followed: bool,
    ) -> None:
        """A user's command is stored, and followed unless whoever took it dies right after."""
        coordinator = self.world.coordinators[0]

        async def work() -> None:
            driver = coordinator.driver
            image = await driver.carry_out(command(await self.world.job(job_id)))
            if image is not None and followed:
                await driver.follow([image])

        await self.guard(coordinator, work())

    # --- coordinators ---------------------------------------------------------------------------------------------

    @rule(which=few, count=number)
    def handle(self, which: int, count: int) -> None:
        coordinator = self.one(which)
        for _ in range(count):
            if not coordinator.dead:
                self.do(self.guard(coordinator, coordinator.handle_one()))

    @rule(which=few, what=st.sampled_from(["flush", "sweep", "pulse"]))
    def tend(self, which: int, what: str) -> None:
        """A coordinator does what its timers tell it."""
        coordinator = self.one(which)
        self.do(self.guard(coordinator, getattr(coordinator, what)()))

    @rule()
    def settle(self) -> None:
        """All messages that are on their way are handled."""
        self.do(self.world.settle())
        self.slow = [slow for slow in self.slow if not slow.coordinator.dead]

    @rule(which=few, after=number, mishap=st.sampled_from(Mishap))
    def bad_luck(self, which: int, after: int, mishap: Mishap) -> None:
        """One of the next steps of a coordinator goes wrong."""
        luck = self.one(which).store.luck  # type: ignore[attr-defined]
        when = len(luck.steps) + 1 + after
        luck.decide = lambda n, _: mishap if n == when else None

    @rule(which=few, queue=st.sampled_from(SLOW_QUEUES), steps=number)
    def get_stuck(self, which: int, queue: str, steps: int) -> None:
        """A coordinator takes a message and stops in the middle of what it does about it."""
        self.do(self._get_stuck(self.one(which), queue, steps))

    async def _get_stuck(self, coordinator: Coordinator, queue: str, steps: int) -> None:
        figures = await self.world.broker.queue(queue)
        if figures is None or not figures.size:
            return
        slot = await self.world.broker.slot(queue)
        delivery = await slot.take()
        message = self.world.codec.decode(delivery.body)
        self.slow.append(Slow(coordinator, Stepper(coordinator.driver, flow_of(message)), delivery))
        await self._go_on(self.slow[-1], steps)

    @rule(which=few, steps=number)
    def get_stuck_sweeping(self, which: int, steps: int) -> None:
        """A coordinator follows an overdue intent and stops in the middle."""
        self.do(self._get_stuck_sweeping(self.one(which), steps))

    async def _get_stuck_sweeping(self, coordinator: Coordinator, steps: int) -> None:
        store, late = self.world.store, self.world.clock.now + 1
        found: list[Any] = [
            *(await store.overdue(JobDocument, late, 1)),
            *(await store.overdue(TaskDocument, late, 1)),
        ]
        if found:
            stepper = Stepper(coordinator.driver, intents.follow([found[-1]]))
            self.slow.append(Slow(coordinator, stepper, None))
            await self._go_on(self.slow[-1], steps)

    @rule(which=few, steps=number)
    def go_on(self, which: int, steps: int) -> None:
        if self.slow:
            self.do(self._go_on(self.slow[which % len(self.slow)], steps))

    async def _go_on(self, slow: Slow, steps: int) -> None:
        async def work() -> None:
            try:
                for _ in range(steps):
                    if not slow.stepper.done:
                        await slow.stepper.take()
            except (Unreadable, StoreUnavailable):
                slow.stepper.done = True

        await self.guard(slow.coordinator, work())
        if slow.stepper.done or slow.coordinator.dead:
            await self._let_go(slow)

    async def _let_go(self, slow: Slow) -> None:
        self.slow = [other for other in self.slow if other is not slow]
        if slow.delivery is not None:
            done = slow.stepper.done and not slow.coordinator.dead
            await (slow.delivery.ack() if done else slow.delivery.requeue())

    @rule(which=few)
    def never_come_back(self, which: int) -> None:
        """Whoever is stuck dies there."""
        if not self.slow:
            return
        slow = self.slow[which % len(self.slow)]
        self.do(self._let_go(slow))
        if slow.coordinator in self.world.coordinators:
            self.do(self.world.replace(slow.coordinator))

    # --- workers --------------------------------------------------------------------------------------------------

    @rule(which=few, ask=st.booleans(), answered=st.booleans())
    def take(self, which: int, ask: bool, answered: bool) -> None:
        worker = self.worker(which)
        for run in self.do(worker.take(ask=ask)):
            self.said.append((CLAIMS_QUEUE, worker.claim_of(run)))
        if answered:
            self.settle()

    @rule(which=few, again=st.booleans())
    def listen(self, which: int, again: bool) -> None:
        worker = self.worker(which)
        self.do(worker.hear())
        if again:
            self.do(worker.ask_again())

    @rule(which=few, late=st.booleans())
    def beat(self, which: int, late: bool) -> None:
        worker = self.worker(which)
        if late:
            self.kept.append(worker.next_beat())
        else:
            self.do(worker.beat())

    @rule(which=few)
    def a_late_beat(self, which: int) -> None:
        if not self.kept:
            return
        beat = self.kept.pop(which % len(self.kept))
        self.do(self.world.broker.publish(HEARTBEAT_QUEUE, self.world.codec.encode(beat)))

    @rule(which=few, what=few, lost=st.booleans())
    def end(self, which: int, what: int, lost: bool) -> None:
        worker = self.worker(which)
        if worker.running:
            run = worker.running[what % len(worker.running)]
            error = outcome(run)
            end = self.do(worker.end(run, error, result=run.name, send=not lost))
            self.said.append((COMPLETED_QUEUE if error is None else ERROR_QUEUE, end))

    @rule(which=few, what=few, vanished=st.booleans())
    def hand_back(self, which: int, what: int, vanished: bool) -> None:
        worker = self.worker(which)
        if worker.running:
            run = worker.running[what % len(worker.running)]
            self.do(worker.hand_back(run, vanished=vanished))
            assert run.end is not None
            self.said.append((ERROR_QUEUE, run.end))

    @rule(which=few, what=few)
    def lose_channel(self, which: int, what: int) -> None:
        """The broker takes a delivery back, and gives it to somebody again."""
        worker = self.worker(which)
        held = [*worker.asked, *worker.running]
        if held:
            run = held[what % len(held)]
            worker.lose_channel(run)
            self.do(run.delivery.requeue())

    @precondition(lambda self: self.workers_made < 4)
    @rule(which=few)
    def kill_worker(self, which: int) -> None:
        self.do(self.worker(which).kill())
        self.add_worker()

    @rule(which=number)
    def say_again(self, which: int) -> None:
        """A message of before comes once more."""
        if not self.said:
            return
        queue, message = self.said[-1 - which % len(self.said)]
        self.do(self.world.broker.publish(queue, self.world.codec.encode(message)))

    # --- the rest of the world ------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 11.0, 20.0, 45.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule(which=few, queue=st.sampled_from([*LOSSY, "answers"]))
    def messages_are_lost(self, which: int, queue: str) -> None:
        if queue == "answers":
            self.do(self.worker(which).hear(lost=True))
        else:
            self.do(self.world.broker.delete_queue(queue))

    @rule(which=few)
    def a_lease_runs_out(self, which: int) -> None:
        self.do(self._lease_runs_out(self.one(which), self.worker(which).node_id))

    async def _lease_runs_out(self, coordinator: Coordinator, node_id: str) -> None:
        node = await self.world.store.get(NodeDocument, node_id)
        if node is not None:
            await self.guard(coordinator, coordinator.driver.handle(beats.close_epoch(node)))

    @rule()
    def all_is_well_for_a_moment(self) -> None:
        self.do(self.world.tick())
        self.slow = [slow for slow in self.slow if not slow.coordinator.dead]

    # --- promises -------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_broken(self) -> None:
        if not self.world.coordinators:
            return
        self.world.audit.check()
        assert max(self.world.audit.ends().values(), default=0) <= 1
        for worker in self.world.workers:
            nonces = [nonce for nonce, _ in worker.started]
            assert len(nonces) == len(set(nonces)), "a nonce was started twice"
        self.do(self.completed_jobs_are_complete())

    async def completed_jobs_are_complete(self) -> None:
        for entry in self.world.audit.entries(self.checked):
            self.checked = entry.n
            if entry.kind == "job" and entry.new == "COMPLETED" and entry.old != entry.new:
                check_end(await self.world.job(entry.id), await self.world.tasks(entry.id))

    async def ends_well(self) -> None:
        """Let the world be kind from now on: all must heal."""
        for luck in self.lucks:
            luck.decide = lambda _n, _name: None
        for slow in list(self.slow):
            await self._let_go(slow)
        self.slow.clear()
        await self.world.rest(240, outcome)
        await self.completed_jobs_are_complete()


History.TestCase.settings = settings(
    max_examples=WANTED or 20,
    stateful_step_count=40,
    derandomize=not WANTED,
    database=None,
    phases=(Phase.generate, Phase.shrink) if WANTED else (Phase.generate,),
    print_blob=bool(WANTED),
    suppress_health_check=list(HealthCheck),
)

TestAnyHistory = History.TestCase
