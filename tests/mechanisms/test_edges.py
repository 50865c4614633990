"""What comes in and goes out would be lost, stuck or doubled but for one mechanism."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coordinator.commands import JobCommands
from coordinator.consumers import QueueConsumers
from coordinator.due.pulse_probes import PulseProbes
from coordinator.due.webhook_addresses import WebhookAddresses
from coordinator.due.webhook_sender import WebhookSender
from coordinator.effects import FlowDriver
from shared.broker.memory import MemoryBroker, Recallable
from shared.config.schema import Config
from shared.errors import StoreUnavailable
from shared.model import language
from shared.model.documents import GUEST, DeliveryDocument, JobDocument
from shared.model.messages import JobChanged, MessageCodec, RunEnded
from shared.model.queries import Change
from shared.model.queues import COMPLETED_QUEUE, DEAD_QUEUE, JOBS_QUEUE
from tests.faults.ports import FaultyBroker, FaultyStore, Luck, Mishap
from tests.settings import default_bounds
from tests.unit.engine.world import World, step
from tests.unit.worker.plant import Plant
from worker.runtime.port import Outcome
from worker.sender import Sender

PATIENCE = 5.0


# --- a command is answered ----------------------------------------------------------------------------------------


def commands_of(world: World, luck: Luck) -> JobCommands:
    """A coordinator's commands whose store and broker have this luck."""
    store: Any = FaultyStore(world.store, luck)
    broker: Any = FaultyBroker(world.broker, luck)
    return JobCommands(FlowDriver(store, broker, world.bounds, world.codec), broker, world.codec)


DEFINITION = language.JobDefinition(
    name="job", tasks=[language.TaskDefinition(name="a", run="true")]
)


async def test_a_job_that_was_not_stored_is_not_answered_for(world: World) -> None:
    commands = commands_of(world, Luck(lambda _, __: Mishap.FAIL_BEFORE))
    with pytest.raises(StoreUnavailable):
        await commands.submit(DEFINITION, GUEST)
    assert await world.store.find(JobDocument, {}) == []


async def test_a_job_is_answered_for_without_a_broker_and_begun_when_one_is_there(
    world: World,
) -> None:
    def no_broker(_: int, name: str) -> Mishap | None:
        return Mishap.FAIL_BEFORE if name.startswith("publish") else None

    job = await commands_of(world, Luck(no_broker)).submit(DEFINITION, GUEST)
    await world.worker()
    await world.heal(60)
    assert await world.state(job.id) == "COMPLETED"


# --- what a worker sends ------------------------------------------------------------------------------------------


async def test_an_end_is_sent_until_the_broker_has_it() -> None:
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    luck = Luck(lambda number, _: Mishap.FAIL_BEFORE if number == 1 else None)
    post = Sender(FaultyBroker(broker, luck), MessageCodec())
    async with asyncio.timeout(PATIENCE):
        await post.end(RunEnded(task_id="t", job_id="j", run=1, nonce="n", node_id="w", ok=True))
    queue = await broker.queue(COMPLETED_QUEUE)
    await broker.close()
    assert queue is not None
    assert queue.size == 1


async def test_a_run_goes_on_when_the_channel_of_its_delivery_is_lost(tmp_path: Path) -> None:
    """A broker's acknowledgement time-out, a lost link: the message comes again, and waits."""
    plant = Plant(tmp_path)
    await plant.start()
    try:
        run = await plant.running()
        delivery = plant.daemon._workers[0].delivery
        assert isinstance(delivery, Recallable)
        delivery.take_back()
        for _ in range(2):
            await plant.next_beat(lambda beat: bool(beat.held))
        assert run.stopped is None
        assert await plant.ready() == 1
        run.end(Outcome(result="done"))
        end = await plant.next(RunEnded)
        assert (end.ok, end.result) == (True, "done")
    finally:
        await plant.close()


async def test_a_draining_worker_stays_until_its_end_is_stored(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    await plant.start()
    try:
        run = await plant.running()
        draining = asyncio.create_task(plant.daemon.drain())
        run.end(Outcome(result="done"))
        end = await plant.next(RunEnded)
        for _ in range(2):
            await plant.next_beat(lambda beat: any(held.role == "ended" for held in beat.held))
        assert not draining.done()
        await plant.stored(end)
        async with asyncio.timeout(PATIENCE):
            await draining
    finally:
        await plant.close()


# --- what a coordinator takes -------------------------------------------------------------------------------------


class Trouble:
    """A store in which reading a job fails as a test says."""

    def __init__(self, store: Any, error: Exception) -> None:
        self._store = store
        self._error = error
        self.waited_for = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, kind: type[Any], id: str) -> Any:
        if id == "poison" or isinstance(self._error, StoreUnavailable):
            raise self._error
        return await self._store.get(kind, id)

    async def ping(self) -> None:
        self.waited_for.set()
        raise self._error


@asynccontextmanager
async def intake(world: World, store: Any) -> AsyncIterator[None]:
    """A coordinator that takes messages by itself."""
    driver = FlowDriver(store, world.broker, default_bounds(), world.codec)
    probes = PulseProbes(driver, world.broker, world.codec, "c")
    taking = QueueConsumers(driver, world.broker, world.codec, probes)
    await driver.start()
    await taking.start()
    try:
        yield
    finally:
        await taking.close()
        await probes.close()
        await driver.close()


async def test_a_message_that_can_not_be_handled_ends_in_dead(world: World) -> None:
    dead = await world.broker.slot(DEAD_QUEUE)
    async with intake(world, Trouble(world.store, RuntimeError("broken"))):
        await world.broker.publish(JOBS_QUEUE, world.codec.encode(JobChanged(job_id="poison")))
        job_id = await world.submit(step("a"))
        async with asyncio.timeout(PATIENCE):
            delivery = await dead.take()
        assert "broken" in delivery.headers["x-reason"]
    assert await world.state(job_id) == "SCHEDULED"


async def test_a_coordinator_without_a_store_leaves_its_messages_to_others(world: World) -> None:
    away = Trouble(world.store, StoreUnavailable("away"))
    async with intake(world, away):
        job_id = await world.submit(step("a"))
        async with asyncio.timeout(PATIENCE):
            await away.waited_for.wait()
        queue = await world.broker.queue(JOBS_QUEUE)
        assert queue is not None
        assert queue.subscribers == 0
    await world.settle()
    assert await world.state(job_id) == "SCHEDULED"


# --- webhooks -----------------------------------------------------------------------------------------------------


class Watched:
    """A coordinator's view of the store, that waits with its first look until `both` have looked."""

    def __init__(self, store: Any, both: asyncio.Barrier) -> None:
        self._store = store
        self._both = both
        self._looked = False
        self.claim: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether its claim of the delivery succeeded."""
        self.settled = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find(self, *args: Any, **options: Any) -> Any:
        found = await self._store.find(*args, **options)
        if not self._looked:
            self._looked = True
            await self._both.wait()
        return found

    async def change(self, change: Change[Any]) -> Any:
        image = await self._store.change(change)
        if "attempts" not in change.set:
            self.settled.set()
        elif not self.claim.done():
            self.claim.set_result(image is not None)
        return image


@asynccontextmanager
async def receiver(received: list[str]) -> AsyncIterator[str]:
    """Receive webhooks; yield the address."""

    async def receive(request: web.Request) -> web.Response:
        received.append(request.headers["webhook-id"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/"
    await runner.cleanup()


async def test_a_delivery_that_two_coordinators_see_is_made_by_one(world: World) -> None:
    received: list[str] = []
    both = asyncio.Barrier(2)
    stores = [Watched(world.store, both) for _ in range(2)]
    async with receiver(received) as url:
        await world.store.insert(DeliveryDocument(id="d", job_id="j", url=url))
        coordinators = [
            WebhookSender(store, 3, 5.0, WebhookAddresses(Config())) for store in stores
        ]
        for webhooks in coordinators:
            webhooks.start()
        async with asyncio.timeout(PATIENCE):
            for store in stores:
                if await store.claim:
                    await store.settled.wait()
        for webhooks in coordinators:
            await webhooks.close()
    assert received == ["d"]
