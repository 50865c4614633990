"""Runs that would be lost or mixed up but for one mechanism."""

from __future__ import annotations

from coordinator.consumers.log_parts import LogPartWriter
from coordinator.engine import beats
from shared.model.documents import LogPartDocument, NodeDocument
from shared.model.messages import LogWritten
from tests.unit.engine.hands import Run, Worker
from tests.unit.engine.steps import Stepper
from tests.unit.engine.world import World, step


async def running(world: World) -> tuple[str, Worker, Run]:
    """A job whose task runs on a worker."""
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    await worker.take()
    await world.settle()
    return job_id, worker, worker.run_named("a")


async def test_a_minute_without_coordinators_makes_no_live_run_look_dead(world: World) -> None:
    """Nobody hears the beats of that time. Whoever comes back sweeps before it hears the next."""
    job_id, worker, run = await running(world)
    for _ in range(12):
        await world.tick()
    for _ in range(12):
        world.clock.advance(5)
        await worker.beat()
    await world.sweep()
    await world.pulse()
    await world.sweep()
    await world.tick()
    assert "lease_ran_out" not in world.counts()
    assert "run_lost" not in world.counts()
    assert [run.nonce for run in worker.running] == [run.nonce]
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_a_run_that_a_late_beat_keeps_is_not_lost_by_who_had_closed_its_lease(
    world: World,
) -> None:
    job_id, worker, run = await running(world)
    node = await world.store.get(NodeDocument, worker.node_id)
    assert node is not None
    closing = Stepper(world.driver, beats.close_epoch(node))
    await closing.until(lambda effect: hasattr(effect, "order"))
    await worker.beat()
    await world.settle()
    await closing.finish()
    await world.settle()
    assert (await world.task(job_id, "a")).state == "RUNNING"
    assert [run.nonce for run in worker.running] == [run.nonce]
    assert "run_lost" not in world.counts()


async def test_parts_of_an_older_runs_log_that_come_late_are_refused(world: World) -> None:
    job_id, worker, first = await running(world)
    await worker.hand_back(first)
    await world.settle()
    await worker.take()
    await world.settle()
    second = worker.run_named("a")
    intake = LogPartWriter(world.driver)
    intake.start()
    for run, parts in ((second, ["new 1\n"]), (first, ["old 1\n", "old 2\n"])):
        message = LogWritten(
            task_id=run.task_id, job_id=job_id, run=run.run, nonce=run.nonce, first=1, parts=parts
        )
        await intake.take(message)
    await intake.close()
    stored = await world.store.find(LogPartDocument, {"task_id": second.task_id})
    assert [part.contents for part in stored] == ["new 1\n"]
