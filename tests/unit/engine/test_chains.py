"""Jobs from top to bottom: order, conditions, values, output, progress."""

from __future__ import annotations

import pytest

from coordinator.engine import intents
from shared.model.documents import JobDocument, TaskDocument
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


async def test_a_chain_runs_from_top_to_bottom(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), step("b"), step("c"))
    order: list[str] = []
    await world.run(lambda run: order.append(run.name))
    job = await world.job(job_id)
    assert order == ["a", "b", "c"]
    assert (job.state, job.position, job.progress) == ("COMPLETED", 4, 100.0)
    assert world.audit.states(job_id) == ["SCHEDULED", "RUNNING", "COMPLETED"]
    await world.check_at_rest()


async def test_the_job_runs_once_its_first_task_is_granted(world: World) -> None:
    job_id = await world.submit(step("a"))
    await world.settle()
    assert (await world.job(job_id)).started_at is None
    assert await world.state(job_id) == "SCHEDULED"
    worker = await world.worker()
    await worker.take()
    await world.settle()
    job = await world.job(job_id)
    assert (job.state, job.started_at, job.position) == ("RUNNING", world.clock.now, 1)


async def test_progress_is_that_of_completed_tasks_and_the_running_ones_share(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a"), step("b"), step("c"))
    await world.settle()
    await worker.take()
    await world.settle()
    await worker.progress(worker.run_named("a"), 50.0)
    await world.settle()
    assert (await world.job(job_id)).progress == 16.67
    assert (await world.task(job_id, "a")).progress == 50.0
    await worker.end(worker.run_named("a"))
    await world.settle()
    assert (await world.job(job_id)).progress == 33.33


async def test_progress_of_an_older_run_or_past_all_bounds_does_no_harm(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    await worker.take()
    await world.settle()
    run = worker.run_named("a")
    await worker.progress(run, 250.0)
    await world.settle()
    assert (await world.task(job_id, "a")).progress == 100.0
    run.run = 0
    await worker.progress(run, 5.0)
    await world.settle()
    assert (await world.task(job_id, "a")).progress == 100.0


async def test_a_task_whose_condition_is_false_is_skipped(world: World) -> None:
    await world.worker()
    job_id = await world.submit(
        step("a", **{"if": "false"}), step("b", **{"if": "{{ inputs.go }}"}), step("c", **{"if": " no"}),
        inputs={"go": " false "},
    )  # fmt: skip
    seen: list[str] = []
    await world.run(lambda run: seen.append(run.name))
    assert seen == []
    assert await world.states(job_id) == {"1": "SKIPPED", "2": "SKIPPED", "3": "FAILED"}


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_job_of_nothing_but_skipped_tasks_completes(world: World, count: int) -> None:
    skipped = [step(f"s{number}", **{"if": "1 > 2"}) for number in range(count)]
    job_id = await world.submit(*skipped)
    await world.settle()
    assert await world.state(job_id) == "COMPLETED"
    assert (await world.job(job_id)).position == count + 1
    await world.check_at_rest()


async def test_results_are_read_by_their_variables(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(
        step("a", var="first"), step("b", env={"VALUE": "{{ tasks.first }}!"}), output="{{ tasks.first }}",
    )  # fmt: skip
    await world.settle()
    await worker.take()
    await world.settle()
    await worker.end(worker.run_named("a"), result="one")
    await world.settle()
    await worker.take()
    await world.settle()
    run = worker.run_named("b")
    assert run.message.task.env == {"VALUE": "one!"}
    await worker.end(run)
    await world.settle()
    assert (await world.job(job_id)).result == "one"


async def test_an_output_that_can_not_be_evaluated_fails_the_job(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), output="{{ 1 / nothing }}")
    await world.run()
    job = await world.job(job_id)
    assert job.state == "FAILED"
    assert (job.error or "").startswith("output: ")
    await world.check_at_rest()


async def test_an_error_of_an_output_is_kept_as_a_tasks_is(world: World) -> None:
    """Its beginning, without secrets."""
    await world.worker()
    job_id = await world.submit(
        step("a"), output=f"{{{{ swordfish{'n' * 50_000} }}}}", secrets={"a": "swordfish"}
    )
    await world.run()
    error = (await world.job(job_id)).error or ""
    assert error.startswith("output: unknown name [REDACTED]nnn")
    assert len(error) == 32 * 1024
    assert "swordfish" not in error
    await world.check_at_rest()


@pytest.mark.parametrize(("letters", "state"), [(2**19, "COMPLETED"), (2**19 + 1, "FAILED")])
async def test_an_output_is_limited_as_a_tasks_is(world: World, letters: int, state: str) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), output=f"{{{{ repeat('é', {letters}) }}}}")
    await world.run()
    job = await world.job(job_id)
    assert job.state == state
    assert job.error == (None if state == "COMPLETED" else "output: larger than the limit of 1 MiB")
    await world.check_at_rest()


async def test_a_template_that_can_not_be_evaluated_fails_its_task_and_job(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a", env={"X": "{{ nothing.at.all }}"}), step("b"))
    await world.run()
    job = await world.job(job_id)
    assert job.state == "FAILED"
    assert "'a'" in (job.error or "")
    assert await world.states(job_id) == {"1": "FAILED"}
    await world.check_at_rest()


async def test_a_failure_fails_the_job_with_the_tasks_error(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), step("b"), step("c"))
    await world.run(lambda run: "out of luck" if run.name == "b" else None)
    job = await world.job(job_id)
    assert (job.state, job.error, job.position) == ("FAILED", "out of luck", 2)
    assert job.failed_at == world.clock.now
    assert await world.states(job_id) == {"1": "COMPLETED", "2": "FAILED"}
    await world.check_at_rest()


async def test_a_task_is_evaluated_once_and_each_of_its_messages_is_the_same(world: World) -> None:
    job_id = await world.submit(step("a", env={"R": "{{ randomInt() }}", "T": "{{ now() }}"}))
    await world.settle()
    first = (await world.task(job_id, "a")).evaluated
    world.clock.advance(100)
    await world.coordinators[0].sweeper._unconfirmed()
    worker = await world.worker()
    (run, *_) = await worker.take()
    assert run.message.task == first
    assert first is not None
    assert first.env["R"].isdigit()


async def test_priorities_and_queues_are_those_of_the_evaluated_task(world: World) -> None:
    worker = await world.worker(slots=0, gpu=1)
    await world.submit(step("low", queue="{{ inputs.q }}"), inputs={"q": "gpu"})
    await world.submit(step("high", queue="gpu", priority=9))
    await world.settle()
    (run,) = await worker.take()
    assert run.name == "high"


async def test_two_followers_of_one_beginning_make_one_first_task(world: World) -> None:
    job_id = await world.submit(step("a", **{"if": "false"}), step("b"))
    job = await world.job(job_id)
    slow = Stepper(world.driver, intents.follow([job]))
    await slow.until(changes(JobDocument, state="SCHEDULED"))
    await world.settle()  # somebody else does all of it
    worker = await world.worker()
    await worker.take()
    await world.settle()
    assert (await world.job(job_id)).position == 2
    await slow.finish()
    await world.settle()
    assert (await world.job(job_id)).position == 2
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


@pytest.mark.parametrize("dies", [False, True])
async def test_an_end_followed_before_its_job_began_holds_nothing_up(
    world: World, dies: bool
) -> None:
    """The first task ended at once; its end is followed while whoever begins the job is stuck half way."""
    await world.worker()
    job_id = await world.submit(step("a", **{"if": "false"}), step("b"), step("c"), told=False)
    slow = Stepper(world.driver, intents.follow([await world.job(job_id)]))
    await slow.until(changes(JobDocument, state="SCHEDULED"))
    (first,) = await world.store.find(TaskDocument, {"job_id": job_id})
    await world.driver.follow([first])
    if not dies:
        await slow.finish()
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


@pytest.mark.parametrize(("count", "fails"), [(2, False), (3, False), (3, True)])
async def test_a_task_that_ends_before_its_job_stands_at_it_holds_nothing_up(
    world: World, count: int, fails: bool
) -> None:
    """Whoever inserted the second task dies before the job's position is moved; the task is found, runs and ends
    before the end of the first one is followed again."""
    worker = await world.worker()
    steps = [step("a", **{"if": "false"}), step("b"), step("c")][:count]
    job_id = await world.submit(*steps, told=False)
    slow = Stepper(world.driver, intents.follow([await world.job(job_id)]))
    await slow.until(changes(JobDocument, position=2))
    second = await world.task(job_id, "b")
    await world.driver.outbox.publish_tasks([second])
    await world.settle()
    await worker.take()
    await world.settle()
    assert (await world.job(job_id)).position == 1
    await worker.end(worker.run_named("b"), "broken" if fails else None, result="b")
    await world.settle()
    if fails:
        job = await world.job(job_id)
        assert (job.state, job.position) == ("FAILED", 2)
        assert await world.restart(job_id)
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert (await world.job(job_id)).position == count + 1
    await world.check_at_rest()


async def test_a_task_granted_before_its_job_was_begun_still_makes_it_run(world: World) -> None:
    """Its message was sent by a sweeper, as whoever began the job is stuck before it said so."""
    worker = await world.worker()
    job_id = await world.submit(step("a"), told=False)
    slow = Stepper(world.driver, intents.follow([await world.job(job_id)]))
    await slow.until(changes(JobDocument, state="SCHEDULED"))
    await world.driver.outbox.publish_tasks(await world.tasks(job_id))
    await worker.take()
    await world.settle()
    assert len(worker.running) == 1
    await slow.finish()
    await world.settle()
    await worker.beat()
    await world.settle()
    assert await world.state(job_id) == "RUNNING"
    await world.run()
    await world.check_at_rest()
