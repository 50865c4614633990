"""Cancelling: a job in every state, tasks in every state, and who comes too late."""

from __future__ import annotations

import pytest

from coordinator.engine import flow, intents, job_ends, task_runs, withdrawal
from coordinator.engine.flow import InsertMany
from shared.model.documents import JobDocument, TaskDocument
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.test_composites import each
from tests.unit.engine.world import World, step


async def test_a_pending_job_can_be_cancelled(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"))
    assert await world.cancel(job_id)
    await world.run()
    job = await world.job(job_id)
    assert (job.state, job.failed_at, job.ended_at) == (
        "CANCELLED",
        world.clock.now,
        world.clock.now,
    )
    assert await world.tasks(job_id) == []
    await world.check_at_rest()


async def test_a_scheduled_job_can_be_cancelled(world: World) -> None:
    job_id = await world.submit(step("a"))
    await world.settle()
    assert await world.cancel(job_id)
    await world.settle()
    assert (await world.task(job_id, "a")).state == "CANCELLED"
    worker = await world.worker()
    await worker.take()
    await world.settle()
    assert not worker.runs  # its message was refused
    await world.check_at_rest()


async def test_a_running_job_can_be_cancelled_once(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a"), step("b"))
    await world.settle()
    await worker.take()
    await world.settle()
    assert await world.cancel(job_id)
    assert not await world.cancel(job_id)
    await world.settle()
    assert not worker.runs
    await world.check_at_rest()


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED"])
async def test_what_has_ended_can_not_be_cancelled(world: World, end: str) -> None:
    await world.worker()
    job_id = await world.submit(step("a"))
    await world.run(lambda _: None if end == "COMPLETED" else "no")
    assert not await world.cancel(job_id)
    assert await world.state(job_id) == end


async def test_held_tasks_are_cancelled(world: World) -> None:
    await world.worker(slots=1)
    each = {"list": "1..4", "concurrency": 1, "task": step("c", retry={"limit": 1})}
    job_id = await world.submit({"name": "e", "each": each})
    await world.run(lambda _: "no")
    assert {task.hold for task in await world.tasks(job_id)} == {None, "delay", "concurrency"}
    assert await world.cancel(job_id)
    await world.settle()
    assert {task.hold for task in await world.tasks(job_id)} == {None}
    await world.heal(10)
    await world.check_at_rest()


async def test_an_attempt_that_has_failed_stays_failed(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a", retry={"limit": 1}))
    await world.run(lambda _: "no")
    assert await world.cancel(job_id)
    await world.settle()
    states = [task.state for task in sorted(await world.tasks(job_id), key=lambda t: t.attempt)]
    assert states == ["FAILED", "CANCELLED"]
    await world.check_at_rest()


async def test_the_end_of_the_last_task_and_a_cancel_do_not_both_win(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    await worker.take()
    await world.settle()
    cancelling = Stepper(world.driver, job_ends.cancelled_by_user(await world.job(job_id)))
    await cancelling.until(changes(JobDocument, state="CANCELLED"))
    await world.run()
    assert await cancelling.finish() is None
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_the_next_task_does_not_come_after_a_cancel(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a"), step("b"))
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.running[0], send=False)
    (task,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    slow = Stepper(world.driver, intents.follow([task]))
    await slow.until(changes(JobDocument, position=2))  # `b` is inserted
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    assert (await world.task(job_id, "b")).state == "CANCELLED"
    assert (await world.job(job_id)).position == 1
    await world.check_at_rest()


async def test_a_first_task_does_not_come_after_a_cancel(world: World) -> None:
    job_id = await world.submit(step("a"), told=False)
    slow = Stepper(world.driver, intents.follow([await world.job(job_id)]))
    await slow.until(changes(JobDocument, state="SCHEDULED"))
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    assert (await world.task(job_id, "a")).state == "CANCELLED"
    await world.check_at_rest()


async def test_a_cancel_meets_the_restart_that_came_between(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"))
    await world.run(lambda _: "no")
    seen = await world.job(job_id)
    assert await world.restart(job_id)
    image = await world.driver.carry_out(job_ends.cancelled_by_user(seen))
    assert image is not None
    assert (image.state, image.restarts) == ("CANCELLED", 1)
    await world.driver.follow([image])
    await world.settle()
    await world.check_at_rest()


async def test_tasks_are_cancelled_parents_first(world: World) -> None:
    job_id = await world.submit(
        {"name": "p", "parallel": {"tasks": [{"name": "q", "parallel": {"tasks": [step("a")]}}]}}
    )
    await world.settle()
    await world.cancel(job_id)
    await world.settle()
    order = [e.id for e in world.audit.entries() if e.kind == "task" and e.new == "CANCELLED"]
    names = [(await world.store.get(TaskDocument, id)).name for id in order]  # type: ignore[union-attr]
    assert names == ["p", "q", "a"]
    await world.check_at_rest()


async def test_children_that_come_while_their_parent_is_being_cancelled_go_with_it(
    world: World,
) -> None:
    """The canceller has listed what is open; then the parent grows; then the parent is cancelled."""
    job_id = await world.submit(
        {"name": "p", "parallel": {"tasks": [step("a"), step("b")]}}, told=False
    )
    begin = intents.FOLLOW_UPS[JobDocument, "begin"]
    job = await world.job(job_id)
    (composite,) = await world.driver.carry_out(begin(job, job.then[0]))
    growing = Stepper(world.driver, intents.follow([composite]))
    await growing.until(lambda effect: isinstance(effect, InsertMany))
    cancelled = await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    assert cancelled is not None
    cancelling = Stepper(world.driver, intents.follow([cancelled]))
    await cancelling.until(changes(TaskDocument, state="CANCELLED"))
    await growing.finish()
    assert {task.state for task in await world.tasks(job_id)} == {"PENDING", "RUNNING"}
    await cancelling.finish()
    assert {task.state for task in await world.tasks(job_id)} == {"CANCELLED"}
    await world.settle()
    await world.check_at_rest()


async def test_very_many_that_wait_are_cancelled_in_bulk(world: World) -> None:
    """Not by a write each: what a cancel costs is its batches."""
    job_id = await world.submit(each("1..600", step("c"), concurrency=1))
    await world.settle()
    applied = []
    steps = world.driver._steps
    apply_many = steps[flow.ApplyMany]

    async def counted(effect: flow.ApplyMany) -> int:
        applied.append(len(effect.changes))
        return int(await apply_many(effect))

    steps[flow.ApplyMany] = counted
    assert await world.cancel(job_id)
    await world.settle()
    assert sum(applied) >= 599
    assert len(applied) <= 600 // withdrawal.BATCH + 2
    assert {task.state for task in await world.tasks(job_id)} == {"CANCELLED"}
    await world.check_at_rest()
