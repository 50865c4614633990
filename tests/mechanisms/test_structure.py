"""Chains, composites and restarts that would go wrong but for one mechanism."""

from __future__ import annotations

from typing import Any

from coordinator.engine import intents, slots, task_runs
from coordinator.engine.flow import Insert
from shared.model.documents import JobDocument, TaskDocument
from tests.unit.engine.hands import Run, Worker
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


async def running(world: World, *tasks: dict[str, Any]) -> tuple[str, Worker]:
    """A job whose first tasks run on a worker."""
    worker = await world.worker()
    job_id = await world.submit(*tasks)
    await world.settle()
    await worker.take()
    await world.settle()
    return job_id, worker


async def applied(world: World, worker: Worker, run: Run, error: str | None = None) -> TaskDocument:
    """Apply the end of a run; what follows from it is not done yet."""
    end = await worker.end(run, error, send=False)
    (image,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    assert isinstance(image, TaskDocument)
    return image


async def test_what_follows_from_an_end_is_done_though_who_applied_it_dies(world: World) -> None:
    job_id, worker = await running(world, step("a"), step("b"))
    await applied(world, worker, worker.run_named("a"))
    await world.replace(world.coordinators[0])
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_a_parent_waits_for_an_attempt_that_is_not_inserted_yet(world: World) -> None:
    tasks = [step("a", retry={"limit": 1, "initialDelay": "1s"}), step("b")]
    job_id, worker = await running(world, {"name": "p", "parallel": {"tasks": tasks}})
    failed = await applied(world, worker, worker.run_named("a"), "no")
    await worker.end(worker.run_named("b"))
    await world.settle()
    assert (await world.task(job_id, "p")).state == "RUNNING"
    await world.driver.follow([failed])
    await world.heal(20)
    assert await world.state(job_id) == "COMPLETED"
    assert (await world.task(job_id, "a")).attempt == 2
    await world.check_at_rest()


async def test_a_slot_that_is_handed_over_twice_is_taken_once(world: World) -> None:
    each = {"list": "1..4", "concurrency": 1, "task": step("{{ item.value }}")}
    job_id, worker = await running(world, {"name": "e", "each": each})
    ended = await applied(world, worker, worker.run_named("1"))
    for _ in range(2):
        await world.driver.handle(slots.hand_over(ended))
    await world.settle()
    await worker.take()
    await world.settle()
    assert [run.name for run in worker.running] == ["2"]
    await world.driver.follow([ended])
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_what_was_on_its_way_before_a_restart_moves_nothing(world: World) -> None:
    job_id, worker = await running(world, step("a"), step("b"))
    ended = await applied(world, worker, worker.run_named("a"))
    slow = Stepper(world.driver, intents.follow([ended]))
    await slow.until(changes(JobDocument, position=2))
    assert await world.cancel(job_id)
    await world.settle()
    assert await world.restart(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    assert (await world.job(job_id)).position == 1
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_a_next_task_inserted_after_a_cancel_does_not_stay(world: World) -> None:
    job_id, worker = await running(world, step("a"), step("b"))
    ended = await applied(world, worker, worker.run_named("a"))
    slow = Stepper(world.driver, intents.follow([ended]))
    await slow.until(lambda effect: isinstance(effect, Insert))
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    assert (await world.task(job_id, "b")).state == "CANCELLED"
    assert "swept_open_under_ended" not in world.counts()
    await world.check_at_rest()


async def test_an_attempt_inserted_after_a_cancel_does_not_stay(world: World) -> None:
    job_id, worker = await running(world, step("a", retry={"limit": 1}))
    failed = await applied(world, worker, worker.run_named("a"), "no")
    slow = Stepper(world.driver, intents.follow([failed]))
    await slow.until(lambda effect: isinstance(effect, Insert))
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    second = await world.task(job_id, "a")
    assert (second.attempt, second.state) == (2, "CANCELLED")
    assert "swept_open_under_ended" not in world.counts()
    await world.check_at_rest()
