"""The pulse: no backlog, outage or frozen coordinator makes live work look dead; dead work is found."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coordinator.engine import flow, leases, pulse
from shared.model.documents import MICROS_PER_SECOND, NodeDocument, Pulse
from shared.model.queues import COMPLETED_QUEUE, ERROR_QUEUE, HEARTBEAT_QUEUE
from shared.model.states import NodeKind
from tests.unit.engine.steps import Stepper
from tests.unit.engine.world import World, step


async def stored(world: World) -> Pulse:
    found = await world.store.get(Pulse, pulse.PULSE_ID)
    assert found is not None
    return found


async def taken(world: World, queue: str, sent: int, came: int | None = None) -> None:
    await world.driver.carry_out(pulse.probe_taken(queue, sent, sent if came is None else came))


async def steady(world: World, seconds: int = 60) -> None:
    """Let probes come through for a while."""
    for _ in range(seconds // 5):
        world.clock.advance(5)
        await world.pulse()


async def test_stamps_move_forward_only(world: World) -> None:
    await steady(world, 10)
    at = (await stored(world)).stamps[COMPLETED_QUEUE]
    await taken(world, COMPLETED_QUEUE, at - 3 * MICROS_PER_SECOND)
    assert (await stored(world)).stamps[COMPLETED_QUEUE] == at
    await taken(world, COMPLETED_QUEUE, at + MICROS_PER_SECOND)
    assert (await stored(world)).stamps[COMPLETED_QUEUE] == at + MICROS_PER_SECOND


async def test_probes_of_all_queues_at_once_all_count(world: World) -> None:
    await steady(world, 30)
    world.clock.advance(5)
    sent = world.clock.now - 10 * MICROS_PER_SECOND
    flows = [Stepper(world.driver, pulse.probe_taken(queue, sent, sent)) for queue in pulse.PROBED]
    for each in flows:
        await each.until(lambda effect: hasattr(effect, "set"))
    await asyncio.gather(*(each.finish() for each in flows))
    assert set((await stored(world)).stamps.values()) == {sent}


async def test_a_steady_pulse_is_one_era(world: World) -> None:
    await world.pulse()
    began = (await stored(world)).era_at
    await steady(world, 120)
    assert (await stored(world)).era_at == began


@pytest.mark.parametrize("what", ["slow", "behind", "pause"])
async def test_a_new_era_begins_when_things_stood_still(world: World, what: str) -> None:
    await steady(world)
    world.clock.advance(5)
    now, began = world.clock.now, (await stored(world)).era_at
    if what == "slow":
        await taken(
            world, COMPLETED_QUEUE, now - 25 * MICROS_PER_SECOND, now - 10 * MICROS_PER_SECOND
        )
    elif what == "behind":
        await taken(
            world,
            COMPLETED_QUEUE,
            (await stored(world)).stamps[COMPLETED_QUEUE] - 15 * MICROS_PER_SECOND,
        )
    else:
        world.clock.advance(25)
        await world.pulse()
    assert (await stored(world)).era_at > began


async def test_a_lost_link_begins_a_new_era_once_in_five_minutes(world: World) -> None:
    await steady(world)
    await world.driver.carry_out(pulse.link_was_lost("c1"))
    first = (await stored(world)).era_at
    assert first == world.clock.now
    await steady(world, 100)
    await world.driver.carry_out(pulse.link_was_lost("c1"))
    assert (await stored(world)).era_at == first
    await world.driver.carry_out(pulse.link_was_lost("c2"))
    assert (await stored(world)).era_at == world.clock.now
    await steady(world, 300)
    await world.driver.carry_out(pulse.link_was_lost("c1"))
    assert (await stored(world)).era_at == world.clock.now
    assert set((await stored(world)).forced) == {"c1"}


async def test_a_forced_era_is_not_lost_to_a_probe_at_the_same_time(world: World) -> None:
    await steady(world)
    forcing = Stepper(world.driver, pulse.link_was_lost("c1"))
    await forcing.until(lambda effect: hasattr(effect, "set"))
    await world.pulse()
    await forcing.finish()
    assert (await stored(world)).era_at == world.clock.now


async def lapsed(world: World) -> bool:
    await world.driver.handle(leases.expire_leases())
    node = await world.store.get(NodeDocument, "w")
    assert node is not None
    return node.closed


async def test_the_lease_of_a_dead_node_runs_out_within_a_minute(world: World) -> None:
    await steady(world)
    worker = await world.worker()
    await worker.kill()
    for _ in range(9):  # 45 s: the lease, and the probes' way
        await steady(world, 5)
        if await lapsed(world):
            break
    assert await lapsed(world)
    assert world.clock.now > 0


async def test_no_lease_runs_out_before_its_end_is_behind_the_pulse(world: World) -> None:
    await steady(world)
    await world.worker()
    for _ in range(8):
        world.clock.advance(5)
        for queue in (COMPLETED_QUEUE, HEARTBEAT_QUEUE):
            await taken(world, queue, world.clock.now - 10 * MICROS_PER_SECOND)
    assert not await lapsed(world)  # `error` stands still: an end may be waiting in it
    await taken(world, ERROR_QUEUE, world.clock.now - 10 * MICROS_PER_SECOND)
    assert not await lapsed(world)  # that began a new era


async def test_no_lease_runs_out_in_a_young_era(world: World) -> None:
    await steady(world)
    await world.worker()
    await steady(world, 35)
    await world.driver.carry_out(pulse.link_was_lost("c1"))
    await steady(world, 40)
    assert not await lapsed(world)
    await steady(world, 5)
    assert await lapsed(world)


async def test_without_probes_no_lease_runs_out(world: World) -> None:
    await world.worker()
    world.clock.advance(1000)
    assert not await lapsed(world)


async def test_a_node_that_beats_keeps_its_lease(world: World, folder: Path) -> None:
    worker = await world.worker()
    for _ in range(30):
        world.clock.advance(5)
        await worker.beat()
        await world.settle()
        await world.pulse()
        assert not await lapsed(world)


async def test_a_killed_workers_task_runs_elsewhere_within_a_minute(world: World) -> None:
    await steady(world)
    worker = await world.worker()
    other = await world.worker("other", slots=0, default=0)
    job_id = await world.submit(step("a"))
    await world.settle()
    await worker.take()
    await world.settle()
    await worker.kill()
    died = world.clock.now
    other.queues = {"default": 1}
    other._slots = [("default", await world.broker.slot("default"))]
    while await world.state(job_id) != "COMPLETED":
        await world.tick()
        await world.run()
        assert world.clock.now - died <= 60 * MICROS_PER_SECOND
    assert (await world.task(job_id, "a")).run == 2
    await world.check_at_rest()


async def test_a_node_that_died_long_ago_costs_a_sweep_nothing(world: World) -> None:
    dead = [
        NodeDocument(
            id=f"n{number}",
            kind=NodeKind.WORKER,
            name="n",
            hostname="h",
            version="0",
            started_at=1,
            last_heartbeat_at=1,
            closed=True,
        )
        for number in range(40)
    ]
    await world.store.insert_many(dead)
    await world.sweep()
    asked = []
    find = world.driver._steps[flow.Find]

    async def counted(effect: flow.Find[Any]) -> Any:
        asked.append(effect.where)
        return await find(effect)

    world.driver._steps[flow.Find] = counted
    await world.driver.handle(leases.runs_of_closed_epochs())
    assert len(asked) == 1
