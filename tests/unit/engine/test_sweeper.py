"""The sweeper: each thing that may be left half done is found and put right, and counted."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.engine import composites, intents, job_lifecycle, repairs, task_runs, transitions
from coordinator.engine.flow import Flow, job_change, task_change
from coordinator.engine.new_documents import intent
from coordinator.store.port import Change
from shared.model.documents import MICROS_PER_SECOND, Document, Intent, JobDocument, TaskDocument
from shared.model.queues import JOBS_QUEUE
from shared.model.states import JobState, TaskState
from tests.faults.ports import FaultyBroker, FaultyStore, Luck, Mishap
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


async def test_a_job_whose_message_was_lost_begins(world: World) -> None:
    job_id = await world.submit(step("a"), told=False)
    world.clock.advance(4)
    await world.sweep()
    assert await world.state(job_id) == "PENDING"
    world.clock.advance(2)
    await world.sweep()
    assert await world.state(job_id) == "SCHEDULED"
    assert world.counts()["swept_overdue"] == 1


async def test_what_was_not_confirmed_is_sent_again(world: World) -> None:
    world.wrap = lambda: (  # the broker is away for the first coordinator
        FaultyStore(world.store, Luck()),
        FaultyBroker(world.broker, Luck(lambda _n, name: Mishap.FAIL_BEFORE if "default" in name else None)),
    )  # fmt: skip
    await world.replace(world.coordinators[0])
    job_id = await world.submit(step("a"))
    await world.settle()
    assert (await world.task(job_id, "a")).state == "PENDING"
    world.wrap = lambda: (world.store, world.broker)
    await world.replace(world.coordinators[0])
    world.clock.advance(9)
    await world.sweep()
    assert (await world.task(job_id, "a")).state == "PENDING"
    world.clock.advance(2)
    await world.sweep()
    await world.settle()
    assert (await world.task(job_id, "a")).state == "SCHEDULED"
    assert world.counts()["swept_unconfirmed"] == 1


async def test_what_is_in_no_queue_and_in_nobodys_hands_is_sent_again(world: World) -> None:
    job_id = await world.submit(step("a"))
    await world.settle()
    await world.broker.delete_queue("default")
    worker = await world.worker()  # which makes the queue again
    for _ in range(4):
        await world.tick()
    assert world.counts()["swept_unheard"] == 1
    await worker.take()
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_what_waits_in_its_queue_is_left_alone(world: World) -> None:
    await world.submit(step("a"))
    await world.settle()
    for _ in range(10):
        await world.tick()
    figures = await world.broker.queue("default")
    assert figures is not None
    assert figures.size == 1
    assert not any(what.startswith("swept") for what in world.counts())


async def test_what_a_worker_holds_is_left_alone(world: World) -> None:
    worker = await world.worker()
    await world.submit(step("a"))
    await world.settle()
    await worker.take(ask=False)
    for _ in range(10):
        world.clock.advance(5)
        await worker.beat()
        await world.settle()
        await world.sweep()
    assert not any(what.startswith("swept") for what in world.counts())


async def submit_and_lose(world: World) -> str:
    """Submit a job whose task's message is lost; return the job's id."""
    job_id = await world.submit(step("lost"))
    await world.settle()
    slot = await world.broker.slot("default")
    await (await slot.take()).ack()
    await slot.close()
    return job_id


async def test_what_was_overtaken_is_sent_again(world: World) -> None:
    """Its queue is never empty, but what was sent later has been taken already."""
    lost = await submit_and_lose(world)
    worker = await world.worker(slots=1)
    world.clock.advance(29)
    await worker.beat()
    await world.submit(step("early"))
    await world.submit(step("waits"))
    await world.settle()
    await worker.take()
    await world.settle()
    await world.sweep()
    assert "swept_unheard" not in world.counts()
    await worker.end(worker.running[0])
    world.clock.advance(2)
    await world.submit(step("late"), step("x"))
    await world.settle()
    while not any(run.name == "late" for run in worker.running):
        await worker.take()
        await world.settle()
        await worker.end(worker.running[0]) if worker.running[0].name != "late" else None
        await world.settle()
    await world.submit(step("keeps the queue busy"))
    await world.settle()
    await world.sweep()
    assert world.counts()["swept_unheard"] == 1
    await world.run()
    assert await world.state(lost) == "COMPLETED"


async def test_what_was_overtaken_is_sent_again_where_tasks_wait_for_long(world: World) -> None:
    """Case 1: whoever waited for half an hour is granted now; what was published before it is lost."""
    lost = await submit_and_lose(world)
    world.clock.advance(31)
    for name in ("granted", "keeps the queue busy"):
        await world.submit(step(name))
    await world.settle()
    world.clock.advance(1_800)
    worker = await world.worker(slots=1)
    await worker.beat()
    await worker.take()
    await world.settle()
    await world.sweep()
    assert world.counts()["swept_unheard"] == 1
    await world.run()
    assert await world.state(lost) == "COMPLETED"


async def test_nothing_was_overtaken_by_a_run_that_was_lost_and_sent_again(world: World) -> None:
    """Its first message is back at the head of the queue, and it is granted by that."""
    killed = await world.worker("killed", slots=1)
    job_id = await world.submit(step("granted again"))
    await world.settle()
    await killed.take()
    await world.settle()
    await world.submit(step("waits"))
    await world.settle()
    await killed.kill()
    for _ in range(12):
        await world.tick()
    assert (await world.task(job_id, "granted again")).lost == 1
    worker = await world.worker(slots=1)
    await worker.take()
    await world.tick()
    assert [run.name for run in worker.running] == ["granted again"]
    assert "swept_unheard" not in world.counts()


async def test_children_that_were_inserted_after_their_job_was_removed_are_removed(
    world: World,
) -> None:
    """Whoever inserted them stood still meanwhile; they wait for a slot that nobody gives."""
    each = {"list": "1..3", "concurrency": 1, "task": step("child")}
    job_id = await world.submit({"name": "all", "each": each})
    await world.settle()
    held = [task for task in await world.tasks(job_id) if task.hold == "concurrency"]
    fields = {"job_id": "gone", "root_id": "gone", "parent_id": "above", "slot_of": "above"}
    late = [msgspec.structs.replace(task, id=f"late{task.index}", **fields) for task in held]
    await world.store.insert_many(late)
    assert len(await world.tasks("gone")) == 2
    await world.sweep()
    assert await world.tasks("gone") == []


async def test_retries_are_released_by_whoever_is_there(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a", retry={"limit": 1, "initialDelay": "30s"}))
    await world.run(lambda run: "no" if run.message.attempt == 1 else None)
    await world.replace(world.coordinators[0])
    world.clock.advance(30)
    await world.sweep()
    await world.run()
    assert await world.state(job_id) == "COMPLETED"


async def test_what_is_open_under_something_ended_is_cancelled(world: World) -> None:
    job_id = await world.submit(step("a"))
    await world.settle()
    cancelled = transitions.JobMove((JobState.SCHEDULED,), JobState.CANCELLED)
    fields = transitions.job_end(cancelled.to, world.clock.now)
    assert await world.store.change(job_change(job_id, {}, fields, move=cancelled))
    await world.sweep()
    assert (await world.task(job_id, "a")).state == "CANCELLED"
    assert world.counts()["swept_open_under_ended"] == 1
    await world.check_at_rest()


async def test_a_composite_that_nobody_asked_about_is_completed(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit({"name": "p", "parallel": {"tasks": [step("a")]}})
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.running[0], send=False)
    (done,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    dying = Stepper(world.driver, intents.follow([done]))
    await dying.until(changes(TaskDocument, open=False))
    await world.store.change(
        Change(kind=TaskDocument, id=done.id, set={"open": False}, drop_then=("ended",))
    )
    world.clock.advance(11)
    await world.sweep()
    await world.settle()
    assert await world.state(job_id) == "COMPLETED"
    assert world.counts()["swept_composite"] == 1
    await world.check_at_rest()


async def test_a_sub_job_whose_end_nobody_told_is_told(world: World) -> None:
    await world.worker()
    job_id = await world.submit({"name": "s", "subjob": {"name": "c", "tasks": [step("a")]}})
    await world.settle()
    (child,) = await world.subjobs(await world.task(job_id, "s"))
    failed = transitions.JobMove((JobState.SCHEDULED,), JobState.FAILED)
    fields = transitions.job_end(failed.to, world.clock.now, error=transitions.KeptError("no"))
    assert await world.store.change(job_change(child.id, {}, fields, move=failed))
    world.clock.advance(11)
    await world.sweep()
    await world.settle()
    assert (await world.job(job_id)).error == "no"
    await world.heal(10)
    await world.check_at_rest()


async def _complete_behind_everyone(world: World, task: TaskDocument) -> None:
    """End a task of which nobody hands the slot over."""
    move = transitions.TaskMove((task.state,), TaskState.COMPLETED)
    fields = transitions.task_end(move.to, world.clock.now, open=False)
    assert await world.store.change(task_change(task.id, {}, fields, move=move))


async def test_free_slots_are_given_to_those_who_wait(world: World) -> None:
    await world.worker()
    each = {"list": "1..3", "concurrency": 1, "task": step("c")}
    job_id = await world.submit({"name": "e", "each": each})
    await world.settle()
    (first,) = [task for task in await world.tasks(job_id) if task.slot == 0]
    await _complete_behind_everyone(world, first)
    await world.sweep()
    await world.settle()
    assert world.counts()["swept_free_slot"] == 1
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_a_free_slot_and_window_are_given_in_one_sweep(world: World) -> None:
    """A child that gets a slot waits for the window next: it must not wait for the next sweep."""
    each = {"list": "1..3", "concurrency": 1, "task": step("c")}
    job_id = await world.submit({"name": "e", "each": each})
    await world.settle()
    (first,) = [task for task in await world.tasks(job_id) if task.slot == 0]
    await _complete_behind_everyone(world, first)
    await world.sweep()
    assert sum(task.state == "PENDING" for task in await world.tasks(job_id)) == 1


async def test_an_unknown_intent_is_left_for_a_newer_version(world: World) -> None:
    job_id = await world.submit(step("a"))
    await world.settle()
    await world.store.change(
        Change(kind=JobDocument, id=job_id, add_then=(intent("of the future", world.clock.now),))
    )
    world.clock.advance(10)
    await world.sweep()
    assert [what.do for what in (await world.job(job_id)).then] == ["of the future"]
    assert world.counts()["intent_of_another_version"] == 1


async def test_one_poisoned_intent_keeps_no_other_from_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(_document: Document, _what: Intent) -> Flow[list[Document]]:
        raise ValueError("a fault of ours")

    poison = await world.submit(step("a"), told=False)
    world.clock.advance(1)
    other = await world.submit(step("b"), told=False)
    await world.store.change(
        Change(kind=JobDocument, id=poison, add_then=(intent("hook", 1),), drop_then=("begin",))
    )
    table: dict[tuple[type[Document], str], intents.FollowUp] = dict(intents.FOLLOW_UPS)
    table[JobDocument, "hook"] = poisoned
    monkeypatch.setattr(intents, "FOLLOW_UPS", table)
    world.clock.advance(10)
    await world.sweep()
    assert await world.state(other) == "SCHEDULED"


async def test_a_quiet_system_is_left_alone(world: World) -> None:
    worker = await world.worker()
    await world.submit(step("a"), {"name": "p", "parallel": {"tasks": [step("b")]}})
    await world.run(lambda run: None if run.name == "a" else "\0hold")
    assert len(worker.running) == 1
    before = world.audit.entries()
    for _ in range(20):
        await world.tick()
    assert not any(what.startswith("swept") for what in world.counts())
    assert world.audit.entries() == before
    assert composites.CHILD_BATCH > 0


async def test_jobs_that_nobody_took_are_not_lost_with_their_queue(world: World) -> None:
    job_id = await world.submit(step("a"))
    await world.broker.delete_queue(JOBS_QUEUE)
    world.clock.advance(6)
    await world.sweep()
    assert await world.state(job_id) == "SCHEDULED"


async def test_times_are_the_stores(world: World) -> None:
    world.clock.advance(-1_000_000)
    await world.worker()
    job_id = await world.submit(step("a"))
    await world.run()
    job = await world.job(job_id)
    assert job.ended_at is not None
    assert abs(job.ended_at - world.clock.now) < MICROS_PER_SECOND
    assert await world.driver.carry_out(job_lifecycle.restarted_by_user(job)) is None


async def test_a_process_that_starts_again_sends_all_that_waited_in_its_queues(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "SENT_AT_ONCE", 3)
    monkeypatch.setattr(repairs, "REPAIRS_AT_ONCE", 3)
    job_id = await world.submit(
        {"name": "all", "parallel": {"tasks": [step(f"t{number}") for number in range(8)]}}
    )
    await world.settle()
    await world.broker.delete_queue("default")
    await world.driver.carry_out(repairs.send_all_again())
    await world.worker()
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_what_the_broker_is_asked_for_comes_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper = world.coordinators[0].sweeper
    looked: list[str] = []
    for name in ("_orphans", "_leases", "_structure", "_unconfirmed", "_unheard", "_unused"):

        async def look(name: str = name) -> None:
            looked.append(name)

        monkeypatch.setattr(sweeper, name, look)
    await sweeper.sweep()
    assert looked == ["_orphans", "_leases", "_structure", "_unconfirmed", "_unheard", "_unused"]
