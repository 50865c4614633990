"""Coordinators and workers, users and faults, in one process on a loop with a virtual clock.

All chance comes from one seed, by separate generators, so that a change in one moves no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeVar
from unittest import mock

import msgspec
import psutil

from coordinator.commands import JobCommands
from coordinator.consumers import QueueConsumers
from coordinator.due import due_work, progress_rollup, retention, schedules, webhook_sender
from coordinator.due.coordinator_beats import CoordinatorBeats
from coordinator.due.due_work import DueWork
from coordinator.due.progress_rollup import ProgressRollup
from coordinator.due.pulse_probes import PulseProbes
from coordinator.due.retention import RetentionTimer
from coordinator.due.schedules import ScheduleTimer
from coordinator.due.sweeper import Sweeper
from coordinator.due.webhook_addresses import WebhookAddresses
from coordinator.due.webhook_sender import WebhookSender
from coordinator.effects import FlowDriver
from coordinator.engine import pulse, removal, withdrawal
from shared.broker.memory import MemoryBroker
from shared.config import Config
from shared.errors import ApplicationError, NotFound, StoreUnavailable
from shared.model.documents import (
    GUEST,
    MICROS_PER_SECOND,
    Document,
    JobDocument,
    Micros,
    ScheduleDocument,
    TaskDocument,
)
from shared.model.messages import Beat, Message, MessageCodec
from shared.model.queues import CLAIMS_QUEUE, HEARTBEAT_QUEUE
from shared.supervision import Supervision, present
from tests.settings import default_bounds
from tests.simulation import jobs, ports
from tests.simulation.checker import WEBHOOKS, Checker
from tests.simulation.faults import BUSY_FOR, SETTLED_AFTER, TROUBLE_FROM, TROUBLE_TO, Fault
from tests.simulation.loop import EPOCH, Process, VirtualLoop, of, sleep
from tests.simulation.outside import Receiver, SimRun, SimRuntime
from tests.simulation.slips import Slips
from tests.simulation.store import MemoryData, MemoryStore, Rest
from worker.daemon import STORED_WITHIN, Daemon, Settings
from worker.process_folder import ProcessFolder

_T = TypeVar("_T")

LONGEST: Final = 1_800.0
"""Virtual seconds after the last fault within which everything must have ended, however long it is."""

HANDLED: Final = dict.fromkeys(("jobs", "claims", "completed", "error", "logs", "progress"), 20) | {
    "heartbeat": 1
}

HELD: Final = (*HANDLED, *["heartbeat"] * 5)
"""Queues that may be long for a while: the beats' half of the time."""

BACK_WITHIN: Final = 8.0
"""Seconds within which a process is connected again when the broker is back."""

WORKERS_LATER: Final = 25.0
"""Up to so many seconds later most workers are, half as long as it was away: they try ever more seldom."""

WEBHOOK_TIMEOUT: Final = 5.0

BATCH: Final = 4
"""Steps of chains are small here, so that small jobs have long ones."""

OLD_AFTER: Final = 3_600.0
"""Seconds after which a job is removed for its age: here none gets so old, but by a clock that jumps."""

JUMP: Final = 7_200.0

LOOKS_EVERY: Final = 1.5
"""Seconds between looks at what is due: seldom enough that most of what is simulated is not looks."""

LONG_CUT: Final = 60.0
"""Seconds after which the lease of a worker has run out that is cut off: a run that outlasts that is taken back."""

BEGINS_WITHIN: Final = 10
"""Seconds within which the run of a new job begins, mostly."""

GRACE_TIME: Final = 5.0
"""Seconds that what runs has to end when its worker drains."""

DRAINED_IN_TIME: Final = STORED_WITHIN - 1.0
"""Seconds in which no worker that drains gives up waiting for its ends to be stored: it waits for longer, from when
nothing runs any more, which may be at once."""

STOPPED_WITHIN: Final = 15.0
"""Seconds within which a process that was told to stop has ended, its grace time included; where something else is
wrong, twice as long."""

_HINDERS_NO_END: Final = frozenset(
    {
        "stop worker",
        "stop coordinator",
        "restart worker",
        "lose worker",
        "containers gone",
        WEBHOOKS,
    }
)
"""What goes wrong, or may, and keeps no process from ending."""

SWEEPS_EVERY: Final = 5.0
SWEPT_WITHIN: Final = SWEEPS_EVERY * 1.3
"""Seconds within which each coordinator sweeps, where nothing is wrong."""

HEARD_OF_WITHIN: Final = 15.0
"""Seconds after which a broker gives up a link that nothing comes from."""


_IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where data folders are written to, if there is such a place."""


class SimStore(MemoryStore):
    """The store of one process, by the virtual clock."""

    def __init__(self, data: MemoryData, now: Callable[[], Micros]) -> None:
        super().__init__(data)
        self._now = now

    def now(self) -> Micros:
        return self._now()

    async def _ask(self, work: Callable[[], _T]) -> _T:
        """The link of the process takes the time."""
        if not self._open:
            raise StoreUnavailable("the store is not open")
        return work()


class Node:
    """A coordinator or worker process."""

    def __init__(self, plant: Plant, name: str) -> None:
        self.plant = plant
        self.name = name
        self.process = Process(name)
        self.process.run(present.set, Supervision())
        self.broker = ports.BrokerLink(plant.broker, self.process, plant.links)
        self.task = plant.loop.create_task(self.start(), context=self.process.context)

    async def start(self) -> None:
        """Begin to work."""
        raise NotImplementedError

    async def leave(self) -> None:
        """End as after SIGTERM."""
        raise NotImplementedError

    def released(self) -> None:
        """Give up what the system takes from a process that dies."""

    def do(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something in this process."""
        return self.plant.loop.create_task(work, context=self.process.context)


class SimCoordinator(Node):
    """A coordinator: all of it but HTTP."""

    commands: JobCommands
    driver: FlowDriver

    def __init__(self, plant: Plant, name: str) -> None:
        self.serves = False
        self._parts: list[Any] = []
        super().__init__(plant, name)

    async def start(self) -> None:
        plant = self.plant
        store: Any = ports.StoreLink(SimStore(plant.data, plant.micros), self.process, plant.links)
        broker: Any = self.broker
        await store.start()
        self.driver = FlowDriver(store, broker, default_bounds(), plant.codec)
        self.commands = JobCommands(self.driver, broker, plant.codec)
        probes = PulseProbes(self.driver, broker, plant.codec, self.name)
        sender = WebhookSender(store, 6, WEBHOOK_TIMEOUT, WebhookAddresses(Config()))
        sender._session = Receiver(plant, WEBHOOK_TIMEOUT)  # type: ignore[assignment]
        await self._begin(self.driver)
        for part in (
            ScheduleTimer(self.driver, plant.loop.time),
            ProgressRollup(self.driver),
            RetentionTimer(self.driver, OLD_AFTER, 0.0),
            DueWork(self.driver),
            Sweeper(self.driver, broker, SWEEPS_EVERY),
            probes,
        ):
            await self._begin(part)
        sender._loop.start()
        self._parts.append(sender)
        await self._begin(
            QueueConsumers(self.driver, broker, plant.codec, probes, prefetch=HANDLED)
        )
        self.broker.on_connected(self._connected)
        await self._begin(CoordinatorBeats(self.driver, self.name, self.name, "1", None, 5.0))
        self.serves = True

    async def _begin(self, part: Any) -> None:
        started = part.start()
        if started is not None:
            await started
        self._parts.append(part)

    async def leave(self) -> None:
        self.serves = False
        for part in reversed(self._parts):
            await part.close()

    def _connected(self, first: bool) -> None:
        if not first:
            self.driver.soon(self.driver.carry_out(pulse.link_was_lost(self.name)))


class SimWorker(Node):
    """A worker with a runtime that only waits. `place`: its data folder, where its successor starts."""

    def __init__(self, plant: Plant, name: str, place: str) -> None:
        self.place = place
        self.folder = ProcessFolder(plant.folder / place, name, plant.codec)
        super().__init__(plant, name)

    async def start(self) -> None:
        settings = Settings(
            node_id=self.name,
            name=self.place,
            version="1",
            queues={"default": self.plant.slots, "other": 1},
            beat=5.0,
            drain_timeout=GRACE_TIME,
            spool=self.plant.folder / "spool",
            spool_limit=1_000_000,
        )
        broker: Any = self.broker
        runtime: Any = SimRuntime(self.plant)
        self.daemon = Daemon(broker, runtime, self.plant.codec, settings, self.folder)
        await self.daemon.start()

    async def leave(self) -> None:
        if not hasattr(self, "daemon"):
            return
        began = self.plant.loop.time()
        await self.daemon.drain()
        in_time = self.plant.loop.time() - began < DRAINED_IN_TIME
        self.plant.checker.left_node(self.name, in_time=in_time)
        await self.daemon.close()

    def released(self) -> None:
        self.folder.close()


COMMANDS: Final = (
    *((),) * 4,
    ("cancel",),
    ("cancel", "restart"),
    ("cancel", "restart", "cancel"),
    ("cancel", "rerun", "delete"),
    ("restart", "delete"),
    ("rerun",),
)
"""What a user does to a job, one after another."""

DELETED: Final = object()
"""The answer to a submission that comes again when its job was deleted."""

RESTARTED: Final = ("cancel", "restart")
"""The same where withdrawals slip."""

ASKS_AGAIN: Final = 0.3
"""Of so many submissions one comes again, though it was answered: its answer was lost on the way."""

MEANWHILE: Final = (("cancel",), ("cancel", "restart"), ("cancel", "delete"))
"""What somebody may do to a job while a step of it stalls."""


class Plant:
    """All there is in one simulation."""

    def __init__(self, seed: int, faults: list[Fault], loop: VirtualLoop, folder: Path) -> None:
        self.seed = seed
        self.loop = loop
        self.folder = folder
        self.job_chance = random.Random(f"{seed} jobs")
        self.latencies = random.Random(f"{seed} latencies")
        self.data = MemoryData()
        self.codec = MessageCodec()
        self.broker = MemoryBroker(node_expiry=60.0, clock=loop.time)
        self.slips = Slips(seed, calm=not faults)
        self.links = ports.Links(self.latencies, self, self.slips)
        self.faults = [fault for fault in faults if fault.nth]
        self.timed = [fault for fault in faults if not fault.nth]
        self.labels: dict[str, int] = {}
        self.met: set[tuple[str, str]] = set()
        """(label or state, fault): what went wrong where."""
        self.reached: dict[str, int] = {}
        """The steps of the time in which faults happen, and how often each was made."""
        self.states: dict[str, float] = {}
        """State of a task or job → when, in that time, one last came into it, as the times of faults count."""
        self.coordinators: list[SimCoordinator] = []
        self.workers: list[SimWorker] = []
        self.submitted: dict[str, Any] = {}
        self.told: dict[str, set[str]] = {}
        """Job → what users did to it."""
        self.containers: dict[str, SimRun] = {}
        self.posts: Counter[str] = Counter()
        """Delivery → how often it was tried."""
        self.receiver_hangs = False
        self.engine = asyncio.Event()
        """Whether the engine of the workers' host answers."""
        self.engine.set()
        self._broker_went_at = 0.0
        self.jumped = 0.0
        self.slots = self.job_chance.choice((1, 2))
        self.clocks = random.Random(f"{seed} clocks")
        self.late = random.Random(f"{seed} late")
        self._beats: dict[str, Beat] = {}
        """Process → the last beat that it sent, or was about to."""
        self.problems: list[str] = []
        self.checker = Checker(self.data, self.problems, loop.time, self.micros)
        self.trace = self.checker.trace
        self.slips.noted = self.checker.goes_wrong
        self.data.watchers.append(self._changes)
        self._numbers: Counter[str] = Counter()
        self._outside = copy_context()

    def micros(self) -> Micros:
        """Return the store's time."""
        return round((EPOCH + self.loop.time() + self.jumped) * MICROS_PER_SECOND)

    # --- what happens ---------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """Let jobs come and faults happen, then wait until all is at rest."""
        await self.broker.start()
        for _ in range(2):
            self.add_coordinator()
        for place in ("a", "b"):
            self.add_worker(place)
        await asyncio.sleep(SETTLED_AFTER)
        users = [asyncio.ensure_future(self._user(number)) for number in range(3)]
        users.append(asyncio.ensure_future(self._scheduler()))
        users.append(asyncio.ensure_future(self._operator()))
        looks = asyncio.ensure_future(self._look())
        timed = [asyncio.ensure_future(self._go_wrong(fault)) for fault in self.timed]
        await asyncio.sleep(BUSY_FOR)
        await asyncio.wait([*users, *timed])
        self.faults.clear()
        self.slips.end()
        self.reached = dict(self.labels)
        self._heal()
        await self._rest()
        looks.cancel()

    async def _look(self) -> None:
        """Have the checker look at what is left, again and again."""
        while not self.problems:
            await asyncio.sleep(1.0)
            self.checker.look()

    async def _user(self, number: int) -> None:
        """Submit jobs, and do things to them."""
        chance = random.Random(f"{self.seed} user {number}")
        for count in range(chance.randint(1, 2)):
            await asyncio.sleep(chance.uniform(0, 12))
            definition, key = jobs.job(self.job_chance), f"key {number} {count}"
            job_id = await self._submit(definition, key)
            commands = chance.choice(COMMANDS)
            for what in RESTARTED if self.slips.of_withdrawals else commands:
                await asyncio.sleep(chance.expovariate(1 / chance.choice((0.5, 4))))
                await self._command(what, job_id)
            if chance.random() < ASKS_AGAIN:
                await asyncio.sleep(chance.expovariate(1 / 4))
                await self._ask_for(definition, key)

    async def _submit(self, definition: Any, key: str) -> str:
        """Submit a job until there is an answer; return its id, which nothing has where it was deleted by then."""
        self.submitted[key] = definition
        while True:
            made = await self._ask_for(definition, key)
            if made is DELETED:
                del self.submitted[key]
                return ""
            if made is not None:
                self.submitted[made.id] = self.submitted.pop(key)
                self.told[made.id] = set()
                return str(made.id)

    async def _ask_for(self, definition: Any, key: str) -> Any:
        async def submit(to: SimCoordinator) -> Any:
            try:
                return await to.commands.submit(definition, GUEST, key=key, body_hash=key)
            except NotFound:
                return DELETED

        return await self._asked(submit)

    async def _operator(self) -> None:
        """Have a worker take nothing for a while: in a quarter of the seeds, and where that is to go wrong."""
        chance = random.Random(f"{self.seed} operator")
        if chance.random() < 0.75 and not any("Drain" in each.label for each in self.faults):
            return
        await asyncio.sleep(chance.uniform(0, 12))
        name = chance.choice(self.workers).name if self.workers else ""
        for on in (True, False):
            await self._asked(partial(_drain, name=name, on=on))
            if on:
                await asyncio.sleep(chance.uniform(14, 30))

    async def _scheduler(self) -> None:
        """Have a schedule fire for a while, in half of the seeds; then pause it."""
        chance = random.Random(f"{self.seed} schedule")
        if chance.random() < 0.5 or any(each.what == "clock jumps" for each in self.timed):
            return
        own: Any = SimpleNamespace(store=self._own_store(), bounds=default_bounds())
        commands = JobCommands(own, self.broker, self.codec)
        made = await commands.schedule(jobs.scheduled(chance), GUEST)
        await asyncio.sleep(chance.uniform(8, BUSY_FOR))
        while self.data.of(ScheduleDocument)[made.id]["state"] == "ACTIVE":
            await self._asked(lambda to: to.commands.pause_schedule(made))

    async def _command(self, what: str, job_id: str) -> None:
        job = await self._read(job_id)
        if job is None:
            return
        if what == "rerun":
            await self._rerun(job)
            return
        self.told[job_id].add(what)
        await self._asked(lambda to: getattr(to.commands, what)(job))

    async def _rerun(self, job: JobDocument) -> None:
        if job.ended_at is None or job.deleted_at is not None:
            return
        made = await self._asked(
            lambda to: to.commands.rerun(job, job.definition, GUEST, position=1, kept=())
        )
        if made is not None:
            self.submitted[made.id] = job.definition
            self.told[made.id] = set()

    async def _read(self, job_id: str) -> JobDocument | None:
        return await SimStore.get(self._own_store(), JobDocument, job_id)

    def _own_store(self) -> SimStore:
        store = SimStore(self.data, self.micros)
        store._open = True
        return store

    async def _asked(self, call: Callable[[SimCoordinator], Coroutine[Any, Any, Any]]) -> Any:
        """Ask a coordinator that serves, within 10 s; None where it does not answer, or refuses."""
        serving = [each for each in self.coordinators if each.serves]
        if not serving:
            await asyncio.sleep(1.0)
            return None
        to = self.latencies.choice(serving)
        asked = to.do(call(to))
        await asyncio.wait({asked}, timeout=10.0)
        if not asked.done() or asked.cancelled() or asked.exception() is not None:
            return None
        return asked.result()

    # --- faults ---------------------------------------------------------------------------------------------------

    def step(self, process: Process, label: str) -> str | None:
        """See `ports.World`."""
        self.labels[label] = nth = self.labels.get(label, 0) + 1
        self.trace.append(f"{self.loop.time():.6f} {process.name} {label}\n")
        for fault in self.faults:
            if fault.label == label and fault.nth == nth:
                self.met.add((label, fault.what))
                self.checker.goes_wrong(fault.what)
                return fault.what
        return None

    def stalls(self, about: str) -> float:
        """See `ports.World`: a job is cancelled, and goes on anew or is removed; a worker is killed, and comes."""
        seconds = self.latencies.uniform(3.0, 9.0)
        if self.latencies.random() < 0.25:
            seconds += 5.0
            self.checker.goes_wrong(ports.LONG_STALL)
        self.checker.trouble_until(self.loop.time() + seconds)
        meanwhile = self._meanwhile(about)
        if meanwhile is not None:
            self.loop.create_task(meanwhile, context=self._outside.copy())
        return seconds

    def _meanwhile(self, about: str) -> Coroutine[Any, Any, None] | None:
        worker = next((each for each in self.workers if each.name == about), None)
        if worker is not None:
            return self.latencies.choice((self._killed_soon, self._cut_soon))(worker)
        rest = self.data.of(TaskDocument).get(about)
        job = self.data.of(JobDocument).get(about if rest is None else rest["job_id"])
        root = "" if job is None else job.get("root_id") or job["id"]
        if root not in self.told or self.latencies.random() < 0.2:
            return None
        return self._does(root, self.latencies.choice(MEANWHILE))

    async def _killed_soon(self, worker: SimWorker) -> None:
        await asyncio.sleep(0.5)
        if not worker.process.dead:
            self.checker.goes_wrong("restart worker")
            self.kill(worker.process, again_in=0.5)

    async def _cut_soon(self, worker: SimWorker) -> None:
        """Cut it off for so short that it costs nothing."""
        await asyncio.sleep(0.5)
        self.checker.goes_wrong("brief cut")
        if not worker.process.dead:
            await self._hide("cut", worker, 1.5)
            self.checker.trouble_until(self.loop.time())

    async def _does(self, job_id: str, commands: tuple[str, ...]) -> None:
        for what in commands:
            await asyncio.sleep(self.latencies.uniform(0.2, 0.8))
            await self._command(what, job_id)

    def publishing(self, process: Process, message: Message) -> None:
        """See `ports.World`."""
        if isinstance(message, Beat):
            self._beats[process.name] = message
        self.checker.publishing(process, message)

    def published(self, queue: str, message: Message) -> None:
        """See `ports.World`."""
        self.checker.published(queue, message)

    def heard_in_vain(self, process: Process, message: Message) -> None:
        """See `ports.World`."""
        self.checker.heard_in_vain(process, message)

    def kill(self, process: Process, again_in: float | None = None) -> None:
        """End a process at once; another one comes a little later."""
        nodes: list[Any] = [*self.coordinators, *self.workers]
        node = next((each for each in nodes if each.process is process), None)
        if node is None:
            return
        self.checker.trouble_until(self.loop.time())
        self.loop.kill(process)
        node.broker.close_for_good()
        node.released()
        self._gone(node)
        delay = self.latencies.choice((0.5, 3.0, 45.0))
        delay = delay if again_in is None else again_in
        place = node.place if isinstance(node, SimWorker) else None
        if place is not None and self.late.random() < 0.5:
            self._beat_comes_late(process)
        if place is None:
            self.checker.trouble_until(self.loop.time() + delay)
        self._again(place, delay)

    def _beat_comes_late(self, process: Process) -> None:
        """Have the last beat of a process that died come when others have gone on for a while."""
        last = self._beats.get(process.name)
        if last is None or self.checker.has_left(process.name):
            return
        body = self.codec.encode(msgspec.structs.replace(last, number=last.number + 1))
        delay = self.late.uniform(0.5, 12.0)
        self.checker.trouble_until(self.loop.time() + delay)

        def comes() -> None:
            self.loop.create_task(
                self.broker.publish(HEARTBEAT_QUEUE, body), context=self._outside.copy()
            )

        self.loop.call_later(delay, comes, context=self._outside.copy())

    def _gone(self, node: Any) -> None:
        nodes: list[Any] = self.workers if isinstance(node, SimWorker) else self.coordinators
        nodes.remove(node)

    def _again(self, place: str | None, delay: float) -> None:
        """Have a node come, after a while: a worker to a place, or a coordinator."""
        again = self.add_coordinator if place is None else partial(self.add_worker, place)
        self.loop.call_later(delay, again, context=self._outside.copy())

    def add_coordinator(self) -> None:
        """Start a coordinator; its clock may be wrong."""
        added = SimCoordinator(self, self._name("coordinator"))
        added.process.ahead = self.clocks.choice((0.0, 0.0, 40.0, -40.0))
        self.coordinators.append(added)
        self.checker.coordinators.append(added)

    def add_worker(self, place: str) -> None:
        """Start a worker on a data folder."""
        added = SimWorker(self, self._name("worker"), place)
        self.workers.append(added)
        self.checker.came(added.process, place)

    def _name(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{kind}-{self._numbers[kind]}"

    async def _go_wrong(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        self.checker.goes_wrong(fault.what)
        self.checker.trouble_until(self.loop.time() + fault.seconds)
        for state in self._states():
            self.met.add((state, fault.what))
        what, _, who = fault.what.partition(" ")
        if who in ("coordinator", "worker"):
            nodes: list[Any] = self.workers if who == "worker" else self.coordinators
            if nodes:
                await self._to_node(what, nodes[fault.whom % len(nodes)], fault.seconds)
        elif fault.what == "all workers cut":
            await self._cut_all(fault.seconds)
        elif fault.what == "queue held":
            await self._hold_queue(self.latencies.choice(HELD), fault.seconds)
        else:
            await self._to_all(fault)
            await asyncio.sleep(fault.seconds)
            self._heal()
        self.checker.trouble_until(self.loop.time())

    async def _to_all(self, fault: Fault) -> None:
        does: dict[str, Callable[[], None]] = {
            "store away": partial(setattr, self.links, "store_away", True),
            "receiver hangs": partial(setattr, self, "receiver_hangs", True),
            "engine hangs": self.engine.clear,
            "clock jumps": partial(setattr, self, "jumped", self.jumped + JUMP),
            "broker away": self._broker_goes,
            "all coordinators gone": partial(self._coordinators_go, fault.seconds),
            "containers gone": self._containers_go,
        }
        if fault.what in does:
            does[fault.what]()
        else:
            await self._queues_go(everything=fault.what == "broker emptied")

    def _coordinators_go(self, seconds: float) -> None:
        for each in list(self.coordinators):
            self.kill(each.process, again_in=seconds)

    def _containers_go(self) -> None:
        for run in list(self.containers.values()):
            run.vanish()

    async def _queues_go(self, *, everything: bool) -> None:
        for queue in await self.broker.queues():
            if everything or queue.name == "default":
                await self.broker.delete_queue(queue.name)

    async def _cut_all(self, seconds: float) -> None:
        """Cut all workers off; where that lasts, while a run goes on that outlasts it. Each is back in its own time."""
        if seconds > LONG_CUT:
            job_id = await self._submit(jobs.lasting(seconds), f"lasting {seconds}")
            await self._begun(job_id)
        await asyncio.gather(
            *(
                self._to_node("cut", worker, seconds + self.latencies.uniform(0.0, 2.0))
                for worker in self.workers
            )
        )

    async def _begun(self, job_id: str) -> None:
        """Wait for a run of a job, as long as a run is likely to take to begin."""
        for _ in range(BEGINS_WITHIN):
            await asyncio.sleep(1.0)
            if any(run.assignment.job_id == job_id for run in self.containers.values()):
                return

    async def _hold_queue(self, name: str, seconds: float) -> None:
        """Have nobody be given anything of a queue, as if it were long; beats aside, of the claims neither, which are
        given up meanwhile."""
        names = {name} if name == HEARTBEAT_QUEUE else {name, CLAIMS_QUEUE}
        self.links.held |= names
        for node, each in product(self.coordinators, sorted(names)):
            node.broker.hold(each)
        await asyncio.sleep(seconds / 2)
        if CLAIMS_QUEUE in names:
            await asyncio.gather(*map(self._cut_soon, self.workers))
        await asyncio.sleep(seconds / 2)
        self.links.held -= names
        for node, each in product(self.coordinators, sorted(names)):
            node.broker.let_go(each)

    async def _to_node(self, what: str, node: Any, seconds: float) -> None:
        match what:
            case "kill" | "restart":
                self.kill(node.process, again_in=0.5 if what == "restart" else None)
            case "lose":
                node.place += "'"
                self.kill(node.process)
            case "stop":
                await self._stop(node)
            case "freeze":
                await self._freeze(node, seconds)
            case _:
                await self._hide(what, node, seconds)

    async def _hide(self, what: str, node: Node, seconds: float) -> None:
        """Cut a process off from the broker, from the store, or lose its beats."""
        process = node.process
        process.deprived = what == "deprive"
        if not process.deprived:
            process.goes_away(self.loop.time())
        process.hushed = what == "hush"
        if what == "cut":
            node.broker.lose()
        await asyncio.sleep(seconds)
        process.deprived = process.hushed = False
        if what == "cut":
            self._comes_back(node)
        self._is_heard_again(node)

    async def _stop(self, node: Node) -> None:
        """End a process as SIGTERM does; a worker's grace time is short, and so is what it waits after that."""
        leaving = node.do(node.leave())
        await asyncio.wait({leaving}, timeout=GRACE_TIME + 1.0)
        if not (leaving.done() or node.process.frozen) and self.engine.is_set():
            self.checker.check_handed_back(node.process)
        await asyncio.wait({leaving}, timeout=STOPPED_WITHIN - GRACE_TIME - 1.0)
        if not (node.process.dead or leaving.done() or self.checker.kinds - _HINDERS_NO_END):
            self.problems.append(f"{node.name} does not end")
        await asyncio.wait({leaving}, timeout=STOPPED_WITHIN)
        if node.process.dead:
            return
        self.kill(node.process, again_in=0.5)

    async def _freeze(self, node: Node, seconds: float) -> None:
        """Freeze a process; where that lasts, the broker takes its deliveries back."""
        node.process.goes_away(self.loop.time())
        node.process.frozen = True
        await asyncio.sleep(min(seconds, HEARD_OF_WITHIN))
        if seconds > HEARD_OF_WITHIN:
            if not node.process.dead:
                node.broker.lose()
            await asyncio.sleep(seconds - HEARD_OF_WITHIN)
        if node.process.dead:
            return
        self.loop.thaw(node.process)
        if node.broker.cut:
            self._comes_back(node)
        self._is_heard_again(node)

    def _broker_goes(self) -> None:
        self.links.broker_away = True
        self._broker_went_at = self.loop.time()
        for node in (*self.coordinators, *self.workers):
            node.broker.lose()

    def _broker_comes(self) -> None:
        if self.links.broker_away:
            self.links.broker_away = False
            away = self.loop.time() - self._broker_went_at
            later = min(away / 2, WORKERS_LATER)
            self.checker.trouble_until(self.loop.time() + BACK_WITHIN + later)
            for node in (*self.coordinators, *self.workers):
                delay = self.latencies.uniform(0.0, BACK_WITHIN)
                if isinstance(node, SimWorker):
                    delay += self.latencies.choice((0.0, later, later))
                self.loop.call_later(delay, self._comes_back, node, context=self._outside.copy())

    def _comes_back(self, node: Node) -> None:
        """Have a process take its link up again; one that is frozen does so when it thaws."""
        if not (node.process.dead or node.process.frozen or self.links.broker_away):
            node.broker.mend()
            self._is_heard_again(node)

    def _is_heard_again(self, node: Node) -> None:
        process = node.process
        if not (process.hushed or process.frozen or node.broker.cut):
            process.is_back(self.loop.time())

    def _heal(self) -> None:
        self.links.store_away = False
        self.receiver_hangs = False
        self.engine.set()
        self._broker_comes()

    def _changes(self, kind: type[Document], before: Rest | None, after: Rest | None) -> None:
        if kind not in (TaskDocument, JobDocument) or after is None:
            return
        if before is None or before["state"] != after["state"]:
            at = self.loop.time() - SETTLED_AFTER
            if TROUBLE_FROM <= at < TROUBLE_TO:
                self.states[f"{kind.noun()} {after['state']}"] = at

    def _states(self) -> set[str]:
        """Return in which states tasks and jobs are now."""
        return {
            f"{kind.noun()} {rest['state']}"
            for kind in (TaskDocument, JobDocument)
            for rest in self.data.of(kind).values()
        }

    # --- checking -------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        until, quiet = self.loop.time() + LONGEST, 0
        while quiet < 2 and self.loop.time() < until and not self.checker.is_stuck():
            await asyncio.sleep(2.5)
            quiet = 0 if self.checker.left() or self.checker.in_trouble else quiet + 1
        self.problems += self.checker.left()
        if not self.problems:
            self.checker.check_history()
            self.checker.check_ends(self.submitted, self.told)
            self.checker.check_firings()
            await self._check_quiet()
            self.checker.check_repairs()

    async def _check_quiet(self) -> None:
        """After rest the sweeper finds nothing."""
        before = self.checker.noted()
        await asyncio.sleep(SWEPT_WITHIN)
        found = {what: n for what, n in (self.checker.noted() - before).items() if "swept" in what}
        if found:
            self.problems.append(f"at rest a sweep found {found}")
        for queue in await self.broker.queues():
            if queue.name in ("default", "other", "dead") and queue.size:
                self.problems.append(f"at rest {queue.size} messages are in {queue.name}")


async def _drain(to: SimCoordinator, name: str, on: bool) -> None:
    with contextlib.suppress(ApplicationError):
        await to.commands.drain(name, on)


# --- one seed -----------------------------------------------------------------------------------------------------


class Result(msgspec.Struct, frozen=True):
    """What a seed came to. `labels`: the steps at which faults could happen, and how often each was seen. `states`:
    when, at the latest, a task or job came into each while faults could happen."""

    seed: int
    problems: list[str]
    trace: str
    labels: dict[str, int]
    states: dict[str, float]
    met: list[tuple[str, str]]
    faults: list[Fault]


@contextlib.contextmanager
def surroundings(seed: int, loop: VirtualLoop) -> Iterator[None]:
    """Have clocks, chance and ids come from the seed while the block runs."""
    chance = random.Random(f"{seed} product")
    state = random.getstate()
    random.seed(f"{seed} random")

    def running() -> VirtualLoop:  # asyncio's own asks the system for the process's id each time
        return loop

    def wall() -> float:
        process = of.get()
        return EPOCH + loop.time() + (0.0 if process is None else process.ahead)

    def wall_ns() -> int:
        return round(wall() * 1_000_000_000)

    def new_uuid() -> uuid.UUID:
        return uuid.UUID(int=chance.getrandbits(128), version=4)

    with (
        mock.patch.object(asyncio, "sleep", sleep),
        mock.patch.object(asyncio, "get_running_loop", running),
        mock.patch.object(asyncio.events, "get_running_loop", running),
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(time, "time", wall),
        mock.patch.object(time, "time_ns", wall_ns),
        mock.patch.object(uuid, "uuid4", new_uuid),
        mock.patch.object(psutil, "cpu_percent", return_value=0.0),
        mock.patch.object(due_work, "RELEASED_EVERY", LOOKS_EVERY),
        mock.patch.object(due_work, "TAKEN_UP_EVERY", LOOKS_EVERY),
        mock.patch.object(retention, "_EVERY", LOOKS_EVERY),
        mock.patch.object(progress_rollup, "_EVERY", LOOKS_EVERY),
        mock.patch.object(schedules, "_EVERY", LOOKS_EVERY),
        mock.patch.object(webhook_sender, "_EVERY", LOOKS_EVERY),
        mock.patch.object(withdrawal, "BATCH", BATCH),
        mock.patch.object(removal, "BATCH", BATCH),
    ):
        try:
            yield
        finally:
            random.setstate(state)


def play(seed: int, faults: list[Fault]) -> Result:
    """Play one simulation; no garbage is collected meanwhile, since that would run what a killed process left."""
    collects = gc.isenabled()
    gc.disable()
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder, surroundings(seed, loop):
        asyncio.set_event_loop(loop)
        plant = Plant(seed, faults, loop, Path(folder))
        (plant.folder / "spool").mkdir()
        try:
            loop.run_until_complete(plant.play())
        except Exception as error:
            plant.problems.append(f"{type(error).__name__}: {error}")
        finally:
            for node in (*plant.coordinators, *plant.workers):
                loop.kill(node.process)
                node.released()
            asyncio.set_event_loop(None)
            if collects:
                gc.enable()
    return Result(
        seed,
        plant.problems,
        hashlib.sha256("".join(plant.trace).encode()).hexdigest(),
        plant.reached,
        plant.states,
        sorted(plant.met),
        faults,
    )
