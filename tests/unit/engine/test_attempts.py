"""Further attempts: their number, their delays, and what they inherit."""

from __future__ import annotations

import gc

import pytest

from coordinator.effects.evaluations import EvaluationBusy
from coordinator.engine import intents, repairs, retries, slots, task_runs
from coordinator.engine.flow import Flow, Insert, Publish
from coordinator.engine.new_documents import EVALUATE
from shared.errors import WrongKey
from shared.model import language
from shared.model.documents import MICROS_PER_SECOND, Document, Intent, TaskDocument
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


async def test_a_failed_task_is_tried_again_after_its_delay(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a", retry={"limit": 2, "initialDelay": "4s"}), step("b"))
    await world.run(lambda _: "no")
    first, second = sorted(await world.tasks(job_id), key=lambda task: task.attempt)
    assert (first.state, first.open) == ("FAILED", False)
    assert (second.state, second.hold) == ("CREATED", "delay")
    assert second.due_at == world.clock.now + 4 * MICROS_PER_SECOND
    assert await world.state(job_id) == "RUNNING"
    world.clock.advance(3.9)
    await world.sweep()
    assert (await world.task(job_id, "a")).hold == "delay"
    world.clock.advance(0.1)
    await world.sweep()
    assert (await world.task(job_id, "a")).state == "PENDING"
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_a_task_whose_attempts_are_used_up_fails_its_job(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a", retry={"limit": 2, "initialDelay": "1s"}))
    await world.heal(30, lambda run: f"attempt {run.message.attempt}")
    job = await world.job(job_id)
    assert (job.state, job.error) == ("FAILED", "attempt 3")
    assert [task.attempt for task in await world.tasks(job_id)] == [1, 2, 3]
    await world.check_at_rest()


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        ({}, [1.0, 2.0, 4.0]),
        ({"initial_delay": "10s", "scaling_factor": 3}, [10.0, 30.0, 90.0]),
        ({"initial_delay": "5m", "scaling_factor": 10}, [300.0, 3000.0, 30000.0]),
        ({"initial_delay": "0s"}, [0.0, 0.0, 0.0]),
    ],
)
def test_delays_grow_by_their_factor(retry: dict[str, object], delays: list[float]) -> None:
    made = language.Retry(**retry)  # type: ignore[arg-type]
    assert [retries.retry_delay(made, n, 1) / MICROS_PER_SECOND for n in (1, 2, 3)] == delays


def test_a_delay_is_never_more_than_a_day() -> None:
    retry = language.Retry(limit=10, initial_delay="5m", scaling_factor=10)
    assert retries.retry_delay(retry, 10, 1) == 24 * 3600 * MICROS_PER_SECOND


def test_jitter_spreads_a_delay_to_both_sides_and_never_below_nothing() -> None:
    retry = language.Retry(initial_delay="10s", jitter=1.0)
    delays = [retries.retry_delay(retry, 1, seed) / MICROS_PER_SECOND for seed in range(10_000)]
    assert min(delays) == 0.0
    assert 19.9 < max(delays) <= 20.0


async def test_an_attempt_inherits_its_slot(world: World) -> None:
    await world.worker()
    each = {"list": "[1, 2, 3]", "concurrency": 1, "task": step("c", retry={"limit": 1})}
    job_id = await world.submit({"name": "e", "each": each})
    await world.run(lambda run: "no" if run.message.attempt == 1 else None)
    states = {
        (task.index, task.attempt): task for task in await world.tasks(job_id) if task.parent_id
    }
    assert states[0, 2].slot == states[0, 1].slot == 0
    assert states[0, 2].window == states[0, 1].window
    assert states[1, 1].hold == states[2, 1].hold == "concurrency"
    await world.heal(60, lambda run: "no" if run.message.attempt == 1 else None)
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def slot_given_away(world: World, retry: dict[str, object]) -> str:
    """A job whose first child of two has failed, and whose one slot the second has before the next attempt."""
    worker = await world.worker()
    child = step("{{ item.value }}", retry=retry)
    job_id = await world.submit(
        {"name": "e", "each": {"list": "[1, 2]", "concurrency": 1, "task": child}}
    )
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.run_named("1"), "no", send=False)
    (failed,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    assert isinstance(failed, TaskDocument)
    await world.driver.follow(await world.driver.carry_out(slots.hand_over(failed)))
    await world.driver.follow([failed])
    return job_id


async def test_an_attempt_whose_slot_was_given_away_waits_for_another(world: World) -> None:
    """A repeated hand-over may give away the slot of a task that has failed and whose next attempt is not there
    yet: the attempt must come all the same."""
    job_id = await slot_given_away(world, {"limit": 1})
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert {task.attempt for task in await world.tasks(job_id) if task.name == "1"} == {1, 2}
    await world.check_at_rest()


async def test_an_attempt_whose_slot_was_given_away_waits_out_its_delay(world: World) -> None:
    """Its delay first, then another slot and a place in the window."""
    job_id = await slot_given_away(world, {"limit": 1, "initialDelay": "30s"})
    due_at = world.clock.now + 30 * MICROS_PER_SECOND
    await world.run()  # the other child, and so the slot is free again
    (again,) = [task for task in await world.tasks(job_id) if task.attempt == 2]
    assert (again.state, again.hold, again.due_at) == ("CREATED", "delay", due_at)
    await world.heal(25)
    (again,) = [task for task in await world.tasks(job_id) if task.attempt == 2]
    assert (again.state, again.hold) == ("CREATED", "delay")
    await world.heal(20)
    assert await world.state(job_id) == "COMPLETED"
    (again,) = [task for task in await world.tasks(job_id) if task.attempt == 2]
    assert again.started_at is not None
    assert again.started_at >= due_at
    await world.check_at_rest()


async def test_an_attempt_that_is_due_gets_a_free_slot_without_a_sweep(world: World) -> None:
    job_id = await slot_given_away(world, {"limit": 1, "initialDelay": "30s"})
    await world.run()
    world.clock.advance(30)
    await world.driver.handle(repairs.release_delayed())
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    assert not any(what.startswith("swept") for what in world.counts())


@pytest.mark.parametrize("error", [EvaluationBusy("many wait"), WrongKey("no"), ValueError("no")])
async def test_an_attempt_that_can_not_begin_keeps_no_other_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await world.worker(slots=2)
    retry = {"limit": 1, "initialDelay": "30s"}
    bad, fine = [await world.submit(step("a", retry=retry)) for _ in range(2)]
    await world.run(lambda run: "no" if run.message.attempt == 1 else None)
    follow_up = intents.FOLLOW_UPS[TaskDocument, EVALUATE]

    def evaluate(document: Document, what: Intent) -> Flow[list[Document]]:
        assert isinstance(document, TaskDocument)
        if document.job_id == bad:
            raise error
        return follow_up(document, what)

    monkeypatch.setitem(intents.FOLLOW_UPS, (TaskDocument, EVALUATE), evaluate)  # type: ignore[misc]
    world.clock.advance(30)
    await world.driver.handle(repairs.release_delayed())
    await world.run()
    assert await world.state(fine) == "COMPLETED"
    assert (await world.task(bad, "a")).state == "CREATED"
    monkeypatch.setitem(intents.FOLLOW_UPS, (TaskDocument, EVALUATE), follow_up)  # type: ignore[misc]
    await world.heal(30)
    assert await world.state(bad) == "COMPLETED"
    await world.check_at_rest()


async def test_attempts_that_are_due_are_read_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be of megabytes."""
    await world.worker(slots=10)
    again = step("a", retry={"limit": 1, "initialDelay": "30s"})
    await world.submit({"name": "all", "each": {"list": "1..10", "task": again}})
    await world.run(lambda run: "no" if run.message.attempt == 1 else None)
    world.clock.advance(30)
    in_memory: list[int] = []
    gc.freeze()  # what was there before need not be looked at each time

    async def publish(_: Publish) -> None:
        gc.collect()
        tasks = [each for each in gc.get_objects() if isinstance(each, TaskDocument)]
        whole = {each.id for each in tasks if each.attempt == 2 and each.definition.run}
        in_memory.append(len(whole))

    monkeypatch.setitem(world.driver._steps, Publish, publish)
    # Not `handle`, which leaves to the background what takes seconds, as looking at all objects does here.
    await world.driver.follow(await world.driver.carry_out(repairs.release_delayed()))
    gc.unfreeze()
    assert in_memory == [1] * 10


async def test_no_attempt_comes_after_its_job_was_cancelled(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a", retry={"limit": 1}))
    await world.settle()
    await worker.take()
    await world.settle()
    failing = await worker.end(worker.run_named("a"), "no", send=False)
    (failed,) = await world.driver.carry_out(task_runs.on_run_ended(failing))
    slow = Stepper(world.driver, intents.follow([failed]))
    await slow.until(changes(TaskDocument, open=False))  # the attempt is inserted
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    assert await world.state(job_id) == "CANCELLED"
    assert (await world.task(job_id, "a")).state == "CANCELLED"
    await world.check_at_rest()


async def test_an_attempt_of_before_a_restart_does_not_stay(world: World) -> None:
    """Whoever inserted it died before its second look, and the job was cancelled and restarted meanwhile."""
    worker = await world.worker()
    job_id = await world.submit(step("a", retry={"limit": 1}))
    await world.settle()
    await worker.take()
    await world.settle()
    failing = await worker.end(worker.run_named("a"), "no", send=False)
    (failed,) = await world.driver.carry_out(task_runs.on_run_ended(failing))
    dying = Stepper(world.driver, intents.follow([failed]))
    await dying.until(lambda effect: isinstance(effect, Insert))
    assert await world.cancel(job_id)
    await world.settle()
    assert await world.restart(job_id)
    await world.settle()
    await dying.until(changes(TaskDocument, open=False))  # it inserts the attempt, and dies
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()
