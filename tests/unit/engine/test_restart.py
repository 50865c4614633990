"""Restart: what failed or was cancelled goes on where it stood, and nothing of before gets in its way."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.commands import JobCommands
from coordinator.effects import FlowDriver
from coordinator.engine import intents, job_ends, job_lifecycle, new_documents, task_runs
from shared.model.documents import GUEST, JobDocument, TaskDocument
from shared.model.messages import JobChanged
from shared.model.queries import Not
from shared.model.queues import JOBS_QUEUE
from tests.faults.ports import Died, FaultyBroker, FaultyStore, Luck, Mishap
from tests.unit.engine.hands import Run
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


def bad_once(run: Run) -> str | None:
    return "no" if run.name == "bad" and run.message.restarts == 0 else None


async def test_a_failed_job_goes_on_where_it_failed(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), step("bad"), step("z"))
    await world.run(bad_once)
    job = await world.job(job_id)
    assert (job.state, job.failed_task and job.failed_task.name) == ("FAILED", "bad")
    world.clock.advance(5)
    assert await world.restart(job_id)
    job = await world.job(job_id)
    assert (job.state, job.restarts, job.error) == ("RUNNING", 1, None)
    assert job.failed_task is None
    assert (job.failed_at, job.completed_at, job.ended_at) == (None, None, None)
    seen: list[str] = []
    await world.run(lambda run: seen.append(run.name))
    assert seen == ["bad", "z"]
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_a_job_made_from_a_step_on_keeps_what_came_before(world: World) -> None:
    await world.worker()
    first = await world.submit(step("a", var="found"), step("bad"), step("z"))
    await world.run(bad_once)
    done = [task for task in await world.tasks(first) if task.name == "a"]
    made = new_documents.new_job((await world.job(first)).definition, "again", world.clock.now)
    made.position = 1
    await world.store.insert_many(new_documents.kept_tasks(made, done))
    assert await world.store.insert(made)
    await world.broker.publish(JOBS_QUEUE, world.codec.encode(JobChanged(job_id=made.id)))
    seen: list[str] = []
    await world.run(lambda run: seen.append(run.name))
    assert seen == ["bad", "z"]
    job = await world.job("again")
    assert (job.state, job.position) == ("COMPLETED", 4)
    assert [task.name for task in await world.tasks("again")] == ["a", "bad", "z"]
    assert "found" in await world.store.vars("again", None, 0)
    await world.check_at_rest()


async def kept_from_the_middle(world: World, luck: Luck) -> JobDocument:
    """Make a job of a failed one that keeps its two first steps, by a process with this luck."""
    first = await world.submit(step("a"), step("b", var="found"), step("bad"))
    await world.run(bad_once)
    job = await world.job(first)
    done = [task.id for task in await world.tasks(first) if task.name in ("a", "b")]
    store: Any = FaultyStore(world.store, luck)
    broker: Any = FaultyBroker(world.broker, luck)
    driver = FlowDriver(store, broker, world.bounds, world.codec)
    commands = JobCommands(driver, broker, world.codec)
    return await commands.rerun(job, job.definition, GUEST, position=3, kept=done)


@pytest.mark.parametrize("mishap", [Mishap.DIE_BEFORE, Mishap.DIE_AFTER])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_what_is_kept_of_a_job_that_is_never_made_goes(
    world: World, number: int, mishap: Mishap
) -> None:
    """Whatever a process died of while it made a job from a step on: either it is there and runs, or nothing of it."""
    await world.worker()
    luck = Luck(lambda count, _: mishap if count == number else None)
    with pytest.raises(Died):
        await kept_from_the_middle(world, luck)
    await world.heal(60)
    await world.run()
    whole = (number, mishap) == (3, Mishap.DIE_AFTER)
    found = await world.store.find(JobDocument, {"rerun_of": Not(None), "deleted_at": None})
    assert [job.state for job in found] == ["COMPLETED"] * whole
    if not whole:
        world.clock.advance(900)
        await world.heal(60)
        assert await world.store.count(JobDocument, {}) == 1
        assert await world.store.count(TaskDocument, {}) == 3
    await world.check_at_rest()


async def test_a_job_does_not_begin_before_what_is_kept_in_it_is_there(world: World) -> None:
    await world.worker()
    made = await kept_from_the_middle(world, Luck(lambda _, __: None))
    seen: list[str] = []
    await world.heal(60, lambda run: seen.append(run.name))
    assert seen == ["bad"]
    job = await world.job(made.id)
    assert (job.state, job.deleted_at) == ("COMPLETED", None)
    assert await world.store.vars(made.id, None, 0) == {"found": "b"}
    await world.check_at_rest()


async def test_a_job_cancelled_before_it_began_begins(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), told=False)
    assert await world.cancel(job_id)
    assert await world.restart(job_id)
    await world.run()
    job = await world.job(job_id)
    assert (job.state, job.position) == ("COMPLETED", 2)
    assert [task.restarts for task in await world.tasks(job_id)] == [1]
    await world.check_at_rest()


@pytest.mark.parametrize("state", ["PENDING", "SCHEDULED", "RUNNING", "COMPLETED"])
async def test_what_goes_on_or_is_done_can_not_be_restarted(world: World, state: str) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    if state != "PENDING":
        await world.settle()
    if state == "RUNNING":
        await worker.take()
        await world.settle()
    if state == "COMPLETED":
        await world.run()
    assert await world.state(job_id) == state
    assert not await world.restart(job_id)
    assert await world.state(job_id) == state


async def test_a_composite_is_run_anew_whole(world: World) -> None:
    await world.worker()
    inner = {"name": "q", "each": {"list": "1..2", "task": step("c")}}
    job_id = await world.submit(
        {"name": "p", "parallel": {"tasks": [inner, step("bad")]}}, step("z")
    )
    await world.run(bad_once)
    assert await world.restart(job_id)
    seen: list[str] = []
    await world.run(lambda run: seen.append(run.name))
    assert sorted(seen) == ["bad", "c", "c", "z"]
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_old_runs_are_stopped_and_their_ends_change_nothing(world: World) -> None:
    worker = await world.worker(slots=8)
    job_id = await world.submit({"name": "p", "parallel": {"tasks": [step("bad"), step("slow")]}})
    await world.settle()
    await worker.take()
    await world.settle()
    slow = worker.run_named("slow")
    await worker.end(worker.run_named("bad"), "no")
    for coordinator in world.coordinators:
        await coordinator.work()
    await worker.hear(lost=True)  # nobody tells it to stop
    assert await world.restart(job_id)
    await world.settle()
    await worker.take()
    await world.settle()
    assert sorted(run.name for run in worker.running) == ["bad", "slow", "slow"]
    await worker.end(slow, result="old")
    await world.settle()
    assert await world.state(job_id) == "RUNNING"
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    assert (await world.task(job_id, "slow")).result == "slow"
    await world.check_at_rest()


async def test_a_failure_of_before_does_not_fail_the_restarted_job(world: World) -> None:
    """The end of an old attempt is followed only after the restart."""
    worker = await world.worker()
    job_id = await world.submit(step("a"), step("b"))
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.running[0], "no", send=False)
    (failed,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    assert await world.cancel(job_id)
    await world.settle()
    assert await world.restart(job_id)
    await world.settle()
    await world.driver.follow([failed])
    assert await world.state(job_id) == "RUNNING"
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_an_advance_of_before_does_not_move_the_restarted_job(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a"), step("b"))
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.running[0], send=False)
    (done,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    slow = Stepper(world.driver, intents.follow([done]))
    await slow.until(changes(JobDocument, position=2))
    assert await world.cancel(job_id)
    await world.settle()
    assert await world.restart(job_id)
    await world.settle()
    await slow.finish()
    assert (await world.job(job_id)).position == 1
    await world.run()
    names = sorted((task.name, task.restarts, task.state) for task in await world.tasks(job_id))
    assert names == [
        ("a", 0, "COMPLETED"),
        ("a", 1, "COMPLETED"),
        ("b", 0, "CANCELLED"),
        ("b", 1, "COMPLETED"),
    ]
    await world.check_at_rest()


async def test_whoever_restarts_slowly_does_not_move_the_position_back(world: World) -> None:
    """Its task is done, and the next one placed by others, before it says where the job stands."""
    await world.worker()
    job_id = await world.submit(step("a", **{"if": "{{ job.name == 'job' }}"}), told=False)
    await world.cancel(job_id)
    await world.settle()
    job_id = await world.submit(step("s", **{"if": "false"}), step("b"), step("c"), told=False)
    await world.cancel(job_id)
    image = await world.driver.carry_out(job_lifecycle.restarted_by_user(await world.job(job_id)))
    assert image is not None
    slow = Stepper(world.driver, intents.follow([image]))
    await slow.until(changes(JobDocument, position=1))
    await world.driver.follow([image])
    assert (await world.job(job_id)).position == 2
    await slow.finish()
    assert (await world.job(job_id)).position == 2
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.heal(15)
    await world.check_at_rest()


async def test_two_restarts_at_once_are_one(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("bad"))
    await world.run(bad_once)
    seen = await world.job(job_id)
    first = Stepper(world.driver, job_lifecycle.restarted_by_user(seen))
    await first.until(changes(JobDocument, state="RUNNING"))
    assert await world.restart(job_id)
    assert await first.finish() is None
    await world.run()
    assert (await world.job(job_id)).restarts == 1
    await world.check_at_rest()


async def test_cancelled_and_restarted_again_and_again(world: World) -> None:
    worker = await world.worker(slots=4)
    inner = {"name": "e", "each": {"list": "1..3", "concurrency": 1, "task": step("c")}}
    job_id = await world.submit({"name": "p", "parallel": {"tasks": [inner, step("o")]}}, step("z"))
    for round_ in range(4):
        await world.settle()
        if round_ % 2:
            await worker.take()
        await world.settle()
        assert await world.cancel(job_id)
        if round_ < 2:
            await world.settle()
        assert await world.restart(job_id)
    await world.heal(30)
    job = await world.job(job_id)
    assert (job.state, job.restarts) == ("COMPLETED", 4)
    await world.check_at_rest()


async def test_an_old_finish_followed_after_the_restart_leaves_the_new_tasks_alone(
    world: World,
) -> None:
    await world.worker()
    job_id = await world.submit(step("bad"), step("z"))
    await world.settle()
    cancelled = await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    assert cancelled is not None
    assert await world.restart(job_id)
    await world.settle()
    await world.driver.follow([cancelled])
    found = sorted((task.restarts, task.state) for task in await world.tasks(job_id))
    assert found == [(0, "CANCELLED"), (1, "SCHEDULED")]
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_values_of_before_are_those_of_completed_tasks(world: World) -> None:
    await world.worker()
    job_id = await world.submit(
        step("a", var="x"), step("bad", env={"X": "{{ tasks.x }}"}), output="{{ tasks.x }}"
    )
    await world.run(bad_once)
    assert await world.restart(job_id)
    await world.run()
    assert (await world.job(job_id)).result == "a"
    task = await world.task(job_id, "bad")
    assert task.evaluated is not None
    assert task.evaluated.env == {"X": "a"}
    assert isinstance(task, TaskDocument)
