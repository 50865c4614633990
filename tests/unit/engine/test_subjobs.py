"""Sub-jobs: attached and detached, and what goes up and down between them and their parents."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coordinator.engine import intents, job_ends, withdrawal
from coordinator.engine.flow import Insert
from shared.model.documents import Actor, DeliveryDocument, JobDocument, TaskDocument
from shared.model.language import Permission
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


def sub(*tasks: dict[str, Any], name: str = "sub", **fields: Any) -> dict[str, Any]:
    return {"name": name, "subjob": {"name": "child", "tasks": list(tasks), **fields}}


async def child_of(world: World, job_id: str, name: str = "sub") -> JobDocument:
    (child,) = await world.subjobs(await world.task(job_id, name))
    return child


async def test_the_result_of_a_sub_job_is_its_tasks(world: World) -> None:
    await world.worker()
    inner = sub(
        step("a", var="x"),
        output="got {{ tasks.x }} {{ inputs.n }}",
        inputs={"n": "{{ inputs.n }}"},
    )
    job_id = await world.submit(
        {**inner, "var": "r"}, step("b"), inputs={"n": "7"}, output="{{ tasks.r }}"
    )
    await world.run()
    job, child = await world.job(job_id), await child_of(world, job_id)
    assert (job.state, job.result) == ("COMPLETED", "got a 7")
    assert (child.state, child.root_id, child.depth) == ("COMPLETED", job_id, 1)
    task = await world.task(job_id, "sub")
    assert (task.subjob_id, task.result) == (child.id, "got a 7")
    await world.check_at_rest()


async def test_a_sub_job_takes_who_made_it_and_who_may_see_it_from_its_parent(world: World) -> None:
    job_id = await world.submit(sub(step("a")))
    job = await world.job(job_id)
    actor = Actor(id="1", username="ada")
    await world.store.delete(JobDocument, {"id": job_id})
    made = msgspec.structs.replace(job, created_by=actor, permissions=[Permission(user="ada")])
    await world.store.insert(made)
    await world.settle()
    child = await child_of(world, job_id)
    assert (child.created_by, child.permissions) == (actor, [Permission(user="ada")])


async def test_a_failed_sub_job_fails_its_parent_task_and_job(world: World) -> None:
    await world.worker()
    job_id = await world.submit(sub(step("a")), step("never"))
    await world.run(lambda _: "broken")
    assert (await world.job(job_id)).error == "broken"
    assert (await world.task(job_id, "sub")).state == "FAILED"
    assert (await child_of(world, job_id)).state == "FAILED"
    await world.check_at_rest()


async def test_a_cancelled_sub_job_cancels_its_parent_task_and_job(world: World) -> None:
    await world.worker()
    job_id = await world.submit(sub(step("a")))
    await world.settle()
    assert await world.cancel((await child_of(world, job_id)).id)
    await world.settle()
    assert (await world.task(job_id, "sub")).state == "CANCELLED"
    assert await world.state(job_id) == "CANCELLED"
    await world.check_at_rest()


async def test_cancelling_reaches_attached_sub_jobs_of_all_depths(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(sub(sub(sub(step("a"), name="s3"), name="s2"), name="s1"))
    await world.settle()
    await worker.take()
    await world.settle()
    assert len(worker.running) == 1
    assert await world.cancel(job_id)
    await world.settle()
    assert worker.running == []
    found = await world.store.find(JobDocument, {})
    assert [job.state for job in found] == ["CANCELLED"] * 4
    await world.check_at_rest()


async def test_a_detached_sub_job_goes_on_by_itself(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(sub(step("a"), detached=True), step("b"))
    await world.settle()
    assert (await world.task(job_id, "sub")).state == "COMPLETED"
    (child,) = await world.store.find(JobDocument, {"name": "child"})
    assert (child.parent_id, child.root_id) == (None, child.id)
    assert await world.cancel(job_id)
    await worker.take()
    await world.settle()
    assert [run.name for run in worker.running] == ["a"]
    await world.run()
    assert await world.state(child.id) == "COMPLETED"
    assert await world.state(job_id) == "CANCELLED"
    await world.check_at_rest()


async def test_a_sub_job_restarted_after_its_parent_ended_ends_alone(world: World) -> None:
    await world.worker()
    job_id = await world.submit(sub(step("a")))
    await world.run(lambda _: "broken")
    child = await child_of(world, job_id)
    assert await world.restart(child.id)
    await world.run()
    assert await world.state(child.id) == "COMPLETED"
    assert await world.state(job_id) == "FAILED"
    await world.check_at_rest()


async def test_a_restart_of_the_parent_makes_a_new_sub_job(world: World) -> None:
    await world.worker()
    job_id = await world.submit(sub(step("a")))
    await world.run(lambda _: "broken")
    assert await world.restart(job_id)
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    found = [job for job in await world.store.find(JobDocument, {}) if job.id != job_id]
    assert sorted(job.state for job in found) == ["COMPLETED", "FAILED"]
    await world.check_at_rest()


async def test_nesting_has_an_end(world: World) -> None:
    await world.worker()
    tree = step("a")
    for level in range(17):
        tree = sub(tree, name=f"s{level}")
    job_id = await world.submit(tree)
    await world.run()
    assert "deeper" in ((await world.job(job_id)).error or "")
    await world.check_at_rest()


async def test_a_sub_jobs_webhooks_hear_that_it_is_pending(world: World) -> None:
    hook = {"url": "http://receiver/"}
    job_id = await world.submit(sub(step("a"), webhooks=[hook]))
    await world.settle()
    child = await child_of(world, job_id)
    bodies = [d.body for d in await world.store.find(DeliveryDocument, {"job_id": child.id})]
    assert any('"PENDING"' in body for body in bodies)


@pytest.mark.parametrize("where", ["task", "withdrawn"])
async def test_a_sub_job_is_not_forgotten_by_whoever_dies_while_cancelling(
    world: World, where: str
) -> None:
    """The task that waits for it is cancelled; then whoever did that dies."""
    await world.worker()
    job_id = await world.submit(sub(step("a")))
    await world.settle()
    child = await child_of(world, job_id)
    assert await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    dying = Stepper(world.driver, intents.follow([await world.job(job_id)]))
    if where == "task":
        await dying.until(lambda effect: getattr(effect, "kind", None) is JobDocument)
    else:
        task = await world.task(job_id, "sub")
        await world.driver.carry_out(withdrawal.withdraw([task]))
    assert (await world.task(job_id, "sub")).state == "CANCELLED"
    for _ in range(3):
        await world.tick()
    assert await world.state(child.id) == "CANCELLED"
    await world.check_at_rest()


async def test_a_sub_job_inserted_below_a_cancelled_task_does_not_stay(world: World) -> None:
    await world.worker()
    job_id = await world.submit(sub(step("a")))
    job = await world.job(job_id)
    begin = Stepper(world.driver, intents.FOLLOW_UPS[JobDocument, "begin"](job, job.then[0]))
    (composite,) = await begin.finish()
    slow = Stepper(world.driver, intents.follow([composite]))
    await slow.until(lambda e: isinstance(e, Insert) and isinstance(e.document, JobDocument))
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    child = await child_of(world, job_id)
    assert child.state == "CANCELLED"
    await world.heal(10)
    await world.check_at_rest()


async def test_an_end_that_comes_before_the_task_knows_its_sub_job_counts(world: World) -> None:
    await world.worker()
    job_id = await world.submit(sub(step("a", **{"if": "false"})))
    job = await world.job(job_id)
    begin = Stepper(world.driver, intents.FOLLOW_UPS[JobDocument, "begin"](job, job.then[0]))
    (composite,) = await begin.finish()
    slow = Stepper(world.driver, intents.follow([composite]))
    await slow.until(changes(TaskDocument, expanded=True))
    child = await child_of(world, job_id)
    await world.driver.follow([child])
    assert await world.state(child.id) == "COMPLETED"
    await slow.finish()
    await world.settle()
    assert await world.state(job_id) == "COMPLETED"
    await world.heal(10)
    await world.check_at_rest()


async def test_a_sub_job_with_too_many_secrets_to_look_for_fails_its_task(world: World) -> None:
    large = "{{ repeat(inputs.n, 70000) }}"
    job_id = await world.submit(
        sub(step("a"), secrets={"a": large, "b": large}), inputs={"n": "xy"}
    )
    await world.settle()
    task = await world.task(job_id, "sub")
    assert task.state == "FAILED"
    assert "subjob: more than 128 KiB of secret values" in (task.error or "")
