"""A job whose tasks ran was RUNNING, also where whoever granted them died before it could say so."""

from __future__ import annotations

from coordinator.engine import flow
from tests.unit.engine.world import World, step


async def nothing(_: flow.Started) -> None:
    """What a coordinator does that dies right after a grant."""


async def test_a_job_is_running_before_it_is_completed(world: World) -> None:
    world.driver._steps[flow.Started] = nothing
    await world.worker()
    job_id = await world.submit(step("a"), step("b"))
    await world.run()
    job = await world.job(job_id)
    assert (job.state, job.position) == ("COMPLETED", 3)
    assert job.started_at is not None
    assert world.audit.states(job_id) == ["SCHEDULED", "RUNNING", "COMPLETED"]
    await world.check_at_rest()


async def test_a_job_of_skipped_tasks_only_never_runs(world: World) -> None:
    job_id = await world.submit({**step("a"), "if": "{{ false }}"})
    await world.settle()
    job = await world.job(job_id)
    assert (job.state, job.started_at) == ("COMPLETED", None)
