"""What only the sweeper finds, and what it must not need to find: by its own figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from coordinator.engine import task_runs
from coordinator.engine.new_documents import ENDED_INTENT
from shared.model.documents import TaskDocument
from shared.model.queries import Change
from tests.faults.ports import FaultyBroker, Luck, Mishap
from tests.unit.engine.world import World, step, world_at


def swept(world: World) -> dict[str, int]:
    """What the sweeper put right."""
    return {what: n for what, n in world.counts().items() if what.startswith("swept")}


async def lose_message(world: World, queue: str = "default") -> None:
    """Have the next message of a queue vanish."""
    slot = await world.broker.slot(queue)
    await (await slot.take()).ack()
    await slot.close()


@pytest.fixture
async def refused(folder: Path) -> AsyncIterator[World]:
    """A world whose broker does not take the first message to `default`."""
    tries: list[str] = []

    def decide(_: int, name: str) -> Mishap | None:
        if name != "publish default":
            return None
        tries.append(name)
        return Mishap.FAIL_BEFORE if len(tries) == 1 else None

    def prepare(world: World) -> None:
        luck = Luck(decide)
        world.wrap = lambda: (world.store, FaultyBroker(world.broker, luck))

    async with world_at(folder, prepare) as world:
        yield world


async def test_a_job_that_nobody_was_told_of_is_begun(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), told=False)
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert swept(world) == {"swept_overdue": 1}
    await world.check_at_rest()


async def test_a_task_that_the_broker_did_not_take_is_sent_again_as_unconfirmed(
    refused: World,
) -> None:
    await refused.worker()
    job_id = await refused.submit(step("a"))
    await refused.heal(60)
    assert await refused.state(job_id) == "COMPLETED"
    assert swept(refused) == {"swept_unconfirmed": 1}
    await refused.check_at_rest()


async def test_a_task_that_lies_in_no_queue_is_sent_again(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    await lose_message(world)
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert swept(world) == {"swept_unheard": 1}
    await world.check_at_rest()


async def test_a_task_that_was_overtaken_is_sent_again_from_a_busy_queue(world: World) -> None:
    worker = await world.worker(slots=1)
    job_id = await world.submit(step("lost"))
    await world.settle()
    await lose_message(world)
    world.clock.advance(31)
    await worker.beat()
    await world.submit(step("later"))
    await world.submit(step("waiting"))
    await world.settle()
    await worker.take()
    for _ in range(3):
        await world.tick()
    assert swept(world) == {"swept_unheard": 1}
    await world.run()
    assert await world.state(job_id) == "COMPLETED"


async def test_a_free_slot_that_nobody_gave_on_is_given_on(world: World) -> None:
    """However that came about."""
    each = {"list": "1..2", "concurrency": 1, "task": step("c{{ item.value }}")}
    job_id = await _closed(world, {"name": "e", "each": each}, "c1")
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert swept(world) == {"swept_free_slot": 1}
    await world.check_at_rest()


async def test_a_composite_that_nobody_asked_after_its_last_child_completes(world: World) -> None:
    """However that came about."""
    job_id = await _closed(world, {"name": "p", "parallel": {"tasks": [step("c1")]}}, "c1")
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert swept(world) == {"swept_composite": 1}
    await world.check_at_rest()


async def _closed(world: World, task: dict[str, object], name: str) -> str:
    """A job of one composite, whose child has ended and is closed, and nothing else has followed from that."""
    worker = await world.worker()
    job_id = await world.submit(task)
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.run_named(name), send=False)
    (ended,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    closed = Change(kind=TaskDocument, id=ended.id, set={"open": False}, drop_then=(ENDED_INTENT,))
    assert await world.store.change(closed)
    return job_id


async def test_what_is_open_below_an_ended_job_is_cancelled(world: World) -> None:
    """However it came there."""
    job_id = await world.submit(step("a"))
    await world.settle()
    assert await world.cancel(job_id)
    await world.settle()
    stray = msgspec.structs.replace(
        await world.task(job_id, "a"), id="stray", state="PENDING", open=True, active=True
    )
    await world.store.insert(stray)
    await world.tick()
    found = await world.store.get(TaskDocument, "stray")
    assert found is not None
    assert found.state == "CANCELLED"
    assert swept(world) == {"swept_open_under_ended": 1}
