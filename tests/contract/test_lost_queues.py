"""Queues that vanish, are emptied, or were never seen by this coordinator: what waits in them runs all the same.

Over memory, and over a real RabbitMQ without its management API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from coordinator.due.sweeper import QUIET_SWEEPS, Sweeper
from coordinator.effects import FlowDriver
from coordinator.engine import repairs
from coordinator.queue_stats import all_queues, one_queue
from shared.broker.memory import MemoryBroker
from shared.broker.port import Broker, QueueInfo
from shared.model.documents import MICROS_PER_SECOND, Micros, QueueDocument, TaskDocument
from shared.model.language import TaskDefinition
from shared.model.messages import MessageCodec, TaskMessage
from shared.model.queries import Change
from shared.model.queues import ALWAYS_THERE
from tests.contract.documents import job, node, task
from tests.integration.rabbitmq.waiting import eventually, within
from tests.settings import default_bounds, rabbitmq_broker
from tests.simulation.store import MemoryData, MemoryStore

NOW: Micros = 10_000_000 * MICROS_PER_SECOND
GPU = {"gpu": 1}


class Times:
    """The store's clock."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> Micros:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    made: Broker
    if request.param == "memory":
        made = MemoryBroker(node_expiry=60.0)
    else:
        made = rabbitmq_broker(request.getfixturevalue("rabbitmq_vhost").url)
    await within(made.start())
    yield made
    await within(made.close())


@pytest.fixture
async def store(times: Times) -> MemoryStore:
    store = MemoryStore(MemoryData(), clock=times)
    await store.start()
    await store.insert(job("j", state="RUNNING", task_count=1))
    return store


def coordinator(store: MemoryStore, broker: Broker) -> Sweeper:
    """Return the sweeper of a coordinator that has just begun."""
    return Sweeper(FlowDriver(store, broker, default_bounds(), MessageCodec()), broker, 5.0)


def sent(id: str, queue: str) -> TaskDocument:
    evaluated = TaskDefinition(name=id, run="true")
    return task(
        id,
        queue=queue,
        state="SCHEDULED",
        evaluated=evaluated,
        published_at=NOW - 20 * MICROS_PER_SECOND,
    )


async def sweep(*sweepers: Sweeper, times: int = QUIET_SWEEPS) -> None:
    for _ in range(times):
        for sweeper in sweepers:
            await sweeper.sweep()


async def purged(broker: Broker) -> None:
    await broker.publish("gpu", b"lost")
    slot = await broker.slot("gpu")
    await (await within(slot.take())).ack()
    await slot.close()


async def deleted(broker: Broker) -> None:
    await broker.publish("gpu", b"lost")
    assert await broker.delete_queue("gpu")


async def never_there(_: Broker) -> None:
    """The broker came back without its data."""


@pytest.mark.parametrize("emptied", [purged, deleted, never_there])
async def test_what_waits_in_an_emptied_queue_is_sent_again_once(
    store: MemoryStore, broker: Broker, emptied: Callable[[Broker], Awaitable[None]]
) -> None:
    await emptied(broker)
    await store.insert(sent("t", "gpu"))
    await store.insert(node("w", queues=GPU))
    await sweep(coordinator(store, broker), coordinator(store, broker), times=4)
    assert await broker.ready("gpu") == 1, "whichever coordinator is first"
    delivery = await within((await broker.slot("gpu")).take())
    message = MessageCodec().decode(delivery.body)
    assert isinstance(message, TaskMessage)
    assert message.task_id == "t"


async def test_a_worker_that_comes_later_is_given_what_was_lost_before(
    store: MemoryStore, broker: Broker
) -> None:
    await store.insert(sent("t", "gpu"))
    sweeper = coordinator(store, broker)
    await sweep(sweeper)
    assert await broker.ready("gpu") is None, "nobody takes from it: it is not made"
    await store.insert(node("w", queues=GPU))
    await sweep(sweeper)
    assert await broker.ready("gpu") == 1


@pytest.mark.parametrize("fields", [{"closed": True}, {"draining": True}])
async def test_a_worker_that_takes_nothing_any_more_does_not_count(
    store: MemoryStore, broker: Broker, fields: dict[str, bool]
) -> None:
    await store.insert(sent("t", "gpu"))
    await store.insert(node("w", queues=GPU, **fields))
    await sweep(coordinator(store, broker))
    assert await broker.ready("gpu") is None


async def test_what_a_worker_holds_is_left_alone(store: MemoryStore, broker: Broker) -> None:
    await store.insert(sent("t", "gpu"))
    await store.insert(node("w", queues=GPU, holding=["t"]))
    await sweep(coordinator(store, broker))
    assert await broker.ready("gpu") is None


async def test_a_job_that_names_300_queues_keeps_no_other_waiting(
    store: MemoryStore, broker: Broker
) -> None:
    await store.insert_many([sent(f"t{number}", f"q{number}") for number in range(300)])
    await store.insert(sent("t", "gpu"))
    await store.insert(node("w", queues=GPU))
    await sweep(coordinator(store, broker))
    assert await broker.ready("gpu") == 1
    assert await broker.ready("q0") is None, "nobody takes from it: it is not made"


async def test_many_queues_have_their_turn_one_after_another(
    store: MemoryStore, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "REPAIRS_AT_ONCE", 2)
    queues = [f"q{number}" for number in range(5)]
    await store.insert_many([sent(f"t-{queue}", queue) for queue in queues])
    await store.insert(node("w", queues=dict.fromkeys(queues, 1)))
    await sweep(coordinator(store, broker), times=6)
    assert [await broker.ready(queue) for queue in queues] == [1] * 5


# --- which queues there are ---------------------------------------------------------------------


async def published(store: MemoryStore, broker: Broker, *queues: str) -> None:
    """Have a coordinator, that is then gone, publish a task in each queue; no worker takes any."""
    driver = FlowDriver(store, broker, default_bounds(), MessageCodec())
    tasks = [
        task(f"t-{queue}", queue=queue, state="PENDING", evaluated=TaskDefinition(run="true"))
        for queue in queues
    ]
    await store.insert_many(tasks)
    await driver.outbox.publish_tasks(tasks)


async def test_queues_are_listed_by_a_coordinator_that_never_saw_them(
    store: MemoryStore, broker: Broker
) -> None:
    await published(store, broker, "gpu", "default")
    await store.insert(node("w", queues={"big": 1}))
    await broker.slot("big")
    listed = {queue.name: queue for queue in await all_queues(store, broker)}
    assert set(listed) == {*ALWAYS_THERE, "gpu", "big"}
    assert listed["gpu"].size == 1
    assert [queue.id for queue in await store.find(QueueDocument, {})] == ["gpu"]


async def test_what_is_on_loan_is_counted_by_the_beats_where_the_broker_does_not_tell(
    store: MemoryStore, broker: Broker
) -> None:
    await published(store, broker, "gpu")
    slot = await broker.slot("gpu")
    await within(slot.take())
    await store.insert(node("w", queues=GPU, holding=["t-gpu"]))
    assert await one_queue(store, broker, "gpu") == QueueInfo("gpu", 0, 1, 1)
    listed = {queue.name: queue for queue in await all_queues(store, broker)}
    assert listed["gpu"].unacked == 1
    told = isinstance(broker, MemoryBroker)
    assert (listed["jobs"].unacked is None) != told, "never a false 0"
    assert await one_queue(store, broker, "none") is None


async def test_300_queues_that_nobody_takes_from_are_gone_an_hour_after_their_job(
    store: MemoryStore, broker: Broker, times: Times
) -> None:
    names = [f"q{number}" for number in range(300)]
    for name in names:
        await (await broker.slot(name)).close()
    await store.insert_many([QueueDocument(id=name, used_at=NOW) for name in names])
    sweeper = coordinator(store, broker)
    times.now += repairs.UNUSED
    await sweep(sweeper, times=6)
    assert await broker.ready("q0") == 0, "an hour is not over"
    times.now += 1
    await eventually(lambda: swept_away(sweeper, store), lambda left: left == 0)
    names_left = {queue.name for queue in await broker.queues(names)}
    assert names_left == set(ALWAYS_THERE)


async def test_a_queue_with_copies_of_what_is_over_is_gone_too(
    store: MemoryStore, broker: Broker, times: Times
) -> None:
    await published(store, broker, "gpu")
    await store.change(Change(kind=TaskDocument, id="t-gpu", set={"state": "CANCELLED"}))
    times.now += repairs.UNUSED + 1
    assert await broker.ready("gpu") == 1
    await sweep(coordinator(store, broker))
    assert await broker.ready("gpu") is None
    assert await store.count(QueueDocument, {}) == 0


async def swept_away(sweeper: Sweeper, store: MemoryStore) -> int:
    await sweeper.sweep()
    return await store.count(QueueDocument, {})


@pytest.mark.parametrize("use", ["a slot", "a task", "a worker"])
async def test_a_queue_in_use_is_not_deleted(
    store: MemoryStore, broker: Broker, times: Times, use: str
) -> None:
    await published(store, broker, "gpu")
    slot = await broker.slot("gpu")
    delivery = await within(slot.take())
    await delivery.ack()
    times.now += repairs.UNUSED + 1
    if use == "a task":
        await store.change(Change(kind=TaskDocument, id="t-gpu", set={"state": "SCHEDULED"}))
    if use == "a worker":
        await store.insert(node("w", queues=GPU))
    if use != "a slot":
        await slot.close()
    await sweep(coordinator(store, broker))
    assert await broker.ready("gpu") is not None
    assert await store.count(QueueDocument, {}) == 1
