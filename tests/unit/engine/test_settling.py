"""What becomes of a message: acknowledged, given back, or buried; nothing loops, nothing blocks those behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from coordinator.consumers import QueueConsumers, queue_consumers
from coordinator.consumers.log_parts import LogPartWriter
from coordinator.due.pulse_probes import PulseProbes
from coordinator.effects import FlowDriver
from coordinator.store.port import Unstorable
from shared.broker import deliveries
from shared.model.documents import JobDocument, LogPartDocument, NodeDocument, TaskDocument
from shared.model.messages import Beat, HandedBack, JobChanged, LogWritten, RunEnded
from shared.model.queues import (
    CLAIMS_QUEUE,
    COMPLETED_QUEUE,
    DEAD_QUEUE,
    ERROR_QUEUE,
    HEARTBEAT_QUEUE,
    JOBS_QUEUE,
    LOGS_QUEUE,
    PROGRESS_QUEUE,
)
from shared.model.states import NodeKind
from tests.unit.engine.world import World, step


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110 - what is waited for shows in the store or the broker
            await asyncio.sleep(0)


@pytest.fixture
async def taking(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FlowDriver]:
    monkeypatch.setattr(queue_consumers, "LONGEST_DELAY", 0.01)
    driver = FlowDriver(world.store, world.broker, world.bounds, world.codec)
    probes = PulseProbes(driver, world.broker, world.codec, "c")
    made = QueueConsumers(driver, world.broker, world.codec, probes)
    await driver.start()
    await made.start()
    yield driver
    await made.close()
    assert driver.counts["dead_letter"] == await size(world, DEAD_QUEUE)
    await probes.close()
    await driver.close()


async def size(world: World, queue: str) -> int:
    figures = await world.broker.queue(queue)
    return 0 if figures is None else figures.size + (figures.unacked or 0)


async def buried(world: World) -> tuple[bytes, str, str]:
    """Wait for one dead message; return it, its reason, and its queue."""

    async def there() -> bool:
        return await size(world, DEAD_QUEUE) == 1

    await until(there)
    slot = await world.broker.slot(DEAD_QUEUE)
    delivery = await slot.take()
    return delivery.body, delivery.headers["x-reason"], delivery.headers["x-queue"]


@pytest.mark.parametrize(
    "queue",
    [
        JOBS_QUEUE,
        CLAIMS_QUEUE,
        COMPLETED_QUEUE,
        ERROR_QUEUE,
        HEARTBEAT_QUEUE,
        LOGS_QUEUE,
        PROGRESS_QUEUE,
    ],
)
@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{}", b'{"kind":"job"}', b"[" * 100_000])
@pytest.mark.usefixtures("taking")
async def test_what_nobody_can_read_is_buried(world: World, queue: str, body: bytes) -> None:
    await world.broker.publish(queue, body)
    dead, reason, where = await buried(world)
    assert (dead, where) == (body, queue)
    assert "not a message of ours" in reason
    assert await size(world, queue) == 0


NEWER = b'{"kind":"fromANewerVersion","text":"x"}'


@pytest.mark.parametrize("queue", [JOBS_QUEUE, COMPLETED_QUEUE, ERROR_QUEUE, LOGS_QUEUE])
@pytest.mark.usefixtures("taking")
async def test_a_kind_of_a_newer_version_is_given_back_before_it_is_buried(
    world: World, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "UNKNOWN_KIND_PAUSE", 0.01)
    given_back: list[bytes] = []
    requeue = deliveries.DeliveryBase.requeue

    async def noted(self: deliveries.DeliveryBase) -> None:
        given_back.append(self.body)
        await requeue(self)

    monkeypatch.setattr(deliveries.DeliveryBase, "requeue", noted)
    await world.broker.publish(queue, NEWER)
    dead, reason, where = await buried(world)
    assert (dead, where) == (NEWER, queue)
    assert "no message of kind 'fromANewerVersion'" in reason
    assert given_back == [NEWER] * (deliveries.UNKNOWN_KIND_TRIES - 1)


@pytest.mark.parametrize("queue", [CLAIMS_QUEUE, HEARTBEAT_QUEUE, PROGRESS_QUEUE])
@pytest.mark.usefixtures("taking")
async def test_a_transient_kind_of_a_newer_version_is_passed_over(world: World, queue: str) -> None:
    await world.broker.publish(queue, NEWER)
    await world.broker.publish(queue, b"no message")
    dead, _, _ = await buried(world)
    assert dead == b"no message"
    assert await size(world, DEAD_QUEUE) == 1  # the one that was just looked at


@pytest.mark.usefixtures("taking")
async def test_a_message_in_a_queue_where_it_has_no_business_is_buried(world: World) -> None:
    beat = Beat(node_id="n", node_kind=NodeKind.WORKER, number=1)
    await world.broker.publish(JOBS_QUEUE, world.codec.encode(beat))
    _, reason, where = await buried(world)
    assert where == JOBS_QUEUE
    assert "not expected" in reason


@pytest.mark.usefixtures("taking")
async def test_the_end_of_a_task_that_is_gone_is_buried(world: World) -> None:
    end = RunEnded(task_id="gone", job_id="j", run=1, nonce="n", node_id="w", ok=True)
    await world.broker.publish(COMPLETED_QUEUE, world.codec.encode(end))
    _, reason, _ = await buried(world)
    assert "there is no task" in reason


@pytest.mark.usefixtures("taking")
async def test_the_end_of_a_run_whose_job_was_deleted_is_passed_over(world: World) -> None:
    """A job that is cancelled, then deleted, leaves runs that are just being stopped."""
    named = dict.fromkeys(("id", "name", "hostname", "version"), "w")
    times = dict.fromkeys(("startedAt", "lastHeartbeatAt"), 1)
    await world.store.insert(msgspec.convert({**named, **times, "kind": "worker"}, NodeDocument))
    ended = RunEnded(task_id="gone", job_id="j", run=1, nonce="n", node_id="w", ok=False)
    back = HandedBack(task_id="gone", job_id="j", run=1, nonce="n", node_id="w")
    for message in (ended, back):
        await world.broker.publish(COMPLETED_QUEUE, world.codec.encode(message))
    await world.broker.publish(COMPLETED_QUEUE, b"no message")
    dead, _, _ = await buried(world)
    assert dead == b"no message"
    assert await size(world, DEAD_QUEUE) == 1  # the one that was just looked at


async def test_a_message_that_its_handler_fails_on_is_tried_again_and_then_buried(
    world: World, taking: FlowDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = taking.store.get

    async def get(kind: Any, id: str) -> Any:
        if id == "poison":
            tried.append(id)
            raise ValueError("a fault of ours")
        return await real(kind, id)

    monkeypatch.setattr(taking.store, "get", get)
    await world.broker.publish(JOBS_QUEUE, world.codec.encode(JobChanged(job_id="poison")))
    job_id = await world.submit(step("a"))
    _, reason, _ = await buried(world)
    assert len(tried) == queue_consumers.HANDLER_TRIES
    assert "a fault of ours" in reason

    async def begun() -> bool:
        return (await world.job(job_id)).state == "SCHEDULED"

    await until(begun)


async def test_a_handler_past_its_deadline_gives_its_message_back(
    world: World, taking: FlowDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = asyncio.Event()
    real = taking.store.get
    tries: list[int] = []

    async def get(kind: Any, id: str) -> Any:
        if kind is JobDocument and not tries:
            tries.append(1)
            await stuck.wait()
        return await real(kind, id)

    monkeypatch.setattr(queue_consumers, "HANDLER_DEADLINE", 0.05)
    monkeypatch.setattr(taking.store, "get", get)
    job_id = await world.submit(step("a"))
    await until(lambda: _is(tries))
    monkeypatch.setattr(queue_consumers, "HANDLER_DEADLINE", 10.0)

    async def begun() -> bool:
        found = await real(JobDocument, job_id)
        return found is not None and found.state == "SCHEDULED"

    await until(begun)


async def _is(value: object) -> bool:
    return bool(value)


# --- logs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def logs(world: World) -> AsyncIterator[LogPartWriter]:
    made = LogPartWriter(world.driver)
    made.start()
    yield made
    await made.close()


async def a_task(world: World, run: int) -> TaskDocument:
    job_id = await world.submit(step("a"))
    await world.settle()
    task = await world.task(job_id, "a")
    stored = msgspec.structs.replace(task, id=f"{task.id[:-1]}x", run=run)
    await world.store.insert(stored)
    return stored


def written(task: TaskDocument, run: int, first: int, *parts: str) -> LogWritten:
    return LogWritten(task_id=task.id, job_id=task.job_id, run=run, first=first, parts=list(parts))


async def test_parts_are_stored_once_under_their_numbers(world: World, logs: LogPartWriter) -> None:
    task = await a_task(world, 1)
    await asyncio.gather(
        *(logs.take(written(task, 1, 1, "a\n", "b\n")) for _ in range(3)),
        logs.take(written(task, 1, 3, "c\n")),
    )
    found = await world.store.find(LogPartDocument, {"task_id": task.id}, ("number",))
    assert [(part.number, part.contents) for part in found] == [(1, "a\n"), (2, "b\n"), (3, "c\n")]


async def test_a_part_has_the_time_when_it_came(world: World, logs: LogPartWriter) -> None:
    """The last part is stored with the end of its run, maybe before those that are gathered here."""
    task = await a_task(world, 1)
    came = world.store.now()

    async def time_goes_on() -> None:
        world.clock.now += 1_000_000

    await asyncio.gather(logs.take(written(task, 1, 1, "a\n")), time_goes_on())
    found = await world.store.find(LogPartDocument, {"task_id": task.id})
    assert [part.created_at for part in found] == [came]


async def test_parts_of_an_older_run_and_of_no_task_are_dropped(
    world: World, logs: LogPartWriter
) -> None:
    task = await a_task(world, 2)
    gone = msgspec.structs.replace(task, id="gone")
    await asyncio.gather(
        logs.take(written(task, 1, 1, "old\n")),
        logs.take(written(task, 2, 1, "new\n")),
        logs.take(written(gone, 1, 1, "lost\n")),
    )
    found = await world.store.find(LogPartDocument, {})
    assert [(part.run, part.contents) for part in found] == [(2, "new\n")]


async def test_one_write_has_no_more_than_a_datastore_does_in_time(
    world: World, logs: LogPartWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await a_task(world, 1)
    sizes: list[int] = []
    real = world.store.append_log

    async def append_log(parts: Any) -> None:
        sizes.append(sum(len(part.contents) for part in parts))
        await real(parts)

    monkeypatch.setattr(world.store, "append_log", append_log)
    largest = 9 * 1024 * 1024
    messages = [
        written(task, 1, number, "x" * (largest if number == 1 else 256 * 1024))
        for number in range(1, 101)
    ]
    async with asyncio.timeout(20):
        await asyncio.gather(*map(logs.take, messages))
    assert sizes.pop(0) == largest, "it can't be divided"
    assert max(sizes) == sizes[0] == 8 * 1024 * 1024
    assert sum(sizes) == 99 * 256 * 1024


async def test_a_part_that_can_not_be_stored_keeps_no_other_from_being_stored(
    world: World, logs: LogPartWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await a_task(world, 1)
    real = world.store.append_log

    async def append_log(parts: Any) -> None:
        if any(part.contents == "poison" for part in parts):
            raise Unstorable("nobody keeps that")
        await real(parts)

    monkeypatch.setattr(world.store, "append_log", append_log)
    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            logs.take(written(task, 1, 1, "a\n")),
            logs.take(written(task, 1, 2, "poison")),
            logs.take(written(task, 1, 3, "c\n")),
            return_exceptions=True,
        )
    assert [type(answer) for answer in answers] == [type(None), Unstorable, type(None)]
    found = await world.store.find(LogPartDocument, {"task_id": task.id}, ("number",))
    assert [part.number for part in found] == [1, 3]
