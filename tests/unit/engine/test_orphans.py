"""What is below something that ended, was restarted or is gone: it ends or goes too, whoever died on the way."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import pytest

from coordinator.engine import intents, job_ends, orphans, task_runs, withdrawal
from coordinator.engine.flow import Insert, InsertMany
from shared.model.documents import JobDocument, TaskDocument
from shared.model.messages import Refused
from shared.model.queries import Change
from tests.unit.engine.hands import Run, Worker
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import HOLD, World, step

NEVER: Final = {"if": "{{ 1 == 2 }}"}


def sub(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "sub", "subjob": {"name": "child", "tasks": list(tasks), **fields}}


def parallel(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"name": "p", "parallel": {"tasks": list(tasks)}}


def inserts_subjob(effect: Any) -> bool:
    return isinstance(effect, Insert) and isinstance(effect.document, JobDocument)


def inserts_task(effect: Any) -> bool:
    return isinstance(effect, Insert) and isinstance(effect.document, TaskDocument)


async def cancelled_before(world: World, slow: Stepper, job_id: str, name: str) -> None:
    """Cancel a job before a task of this name is inserted, by whoever goes on with that."""
    await slow.until(lambda effect: inserts_task(effect) and effect.document.name == name)
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()


async def begun(world: World, job_id: str) -> TaskDocument:
    """Begin a job whose first task is a composite; return that, its children are not inserted yet."""
    job = await world.job(job_id)
    begin = intents.FOLLOW_UPS[JobDocument, "begin"]
    (composite,) = await world.driver.carry_out(begin(job, job.then[0]))
    assert isinstance(composite, TaskDocument)
    return composite


async def children(world: World) -> list[JobDocument]:
    return await world.store.find(JobDocument, {"name": "child"})


async def many_subjobs(world: World, monkeypatch: pytest.MonkeyPatch, count: int = 7) -> str:
    """A job with more attached sub-jobs than one step takes."""
    monkeypatch.setattr(withdrawal, "BATCH", 3)
    job_id = await world.submit(
        {"name": "e", "each": {"list": f"1..{count}", "task": sub(step("a"))}}
    )
    await world.settle()
    assert len(await children(world)) == count
    return job_id


async def deleted(world: World, job_id: str) -> list[Any]:
    return await world.driver.carry_out(job_ends.marked_for_removal(job_id))


async def nothing_left(world: World) -> bool:
    return not any([await world.store.count(kind, {}) for kind in (JobDocument, TaskDocument)])


# --- cancel and delete --------------------------------------------------------------------------------------------


async def test_a_cancel_reaches_more_sub_jobs_than_one_step_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await many_subjobs(world, monkeypatch)
    assert await world.cancel(job_id)
    await world.settle()
    assert {job.state for job in await children(world)} == {"CANCELLED"}
    await world.check_at_rest()


async def test_whoever_dies_in_a_cancel_leaves_the_rest_of_it_to_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await many_subjobs(world, monkeypatch)
    cancelled = await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    assert cancelled is not None
    dying = Stepper(world.driver, intents.follow([cancelled]))
    before = cancelled.then[0].at
    world.clock.advance(1)
    await dying.until(lambda effect: getattr(effect, "kind", None) is JobDocument)
    await dying.take()
    (kept,) = (await world.job(job_id)).then
    assert kept.id == cancelled.then[0].id
    assert kept.at > before  # it is alive
    for _ in range(3):
        await world.tick()
    assert {job.state for job in await children(world)} == {"CANCELLED"}
    await world.check_at_rest()


async def test_a_deleted_job_goes_with_all_its_sub_jobs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run when the job is cancelled and at once deleted: nobody has cancelled them yet."""
    await world.worker(slots=2)
    job_id = await many_subjobs(world, monkeypatch)
    await world.run(lambda _: HOLD)
    await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    (marked,) = await deleted(world, job_id)
    await world.driver.follow([marked])
    assert await nothing_left(world)
    await world.tick()
    assert world.workers[0].running == []
    await world.heal(20)
    assert await nothing_left(world)


async def test_whoever_dies_in_a_removal_leaves_the_rest_of_it_to_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await many_subjobs(world, monkeypatch)
    await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    (marked,) = await deleted(world, job_id)
    dying = Stepper(world.driver, intents.follow([marked]))
    await dying.until(changes(JobDocument, deleted_at=world.clock.now))
    await dying.take()
    for _ in range(4):
        await world.tick()
    assert await nothing_left(world)


async def test_what_goes_on_is_not_marked_for_removal_and_what_is_marked_not_restarted(
    world: World,
) -> None:
    job_id = await world.submit(step("a"))
    await world.settle()
    assert await deleted(world, job_id) == []
    assert await world.cancel(job_id)
    await world.settle()
    assert await deleted(world, job_id)
    assert await deleted(world, job_id) == []
    assert not await world.restart(job_id)


# --- inserted late, by somebody who dies --------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["cancel", "delete", "restart"])
async def test_a_sub_job_inserted_late_does_not_run(world: World, then: str) -> None:
    worker = await world.worker()
    job_id = await world.submit(sub(step("a")), told=False)
    slow = Stepper(world.driver, intents.follow([await begun(world, job_id)]))
    await slow.until(inserts_subjob)
    assert await world.cancel(job_id)
    await world.settle()
    if then == "delete":
        await world.driver.follow(await deleted(world, job_id))
    if then == "restart":
        assert await world.restart(job_id)
        await world.settle()
    await slow.take()  # the sub-job is there, and whoever inserted it dies
    seen: list[Run] = []
    for _ in range(4):
        await world.tick()
        await world.run(seen.append)
    if then == "delete":
        assert await nothing_left(world)
    else:
        states = {"cancel": ["CANCELLED"], "restart": ["CANCELLED", "COMPLETED"]}[then]
        assert sorted(job.state for job in await children(world)) == states
    assert len(seen) == (1 if then == "restart" else 0)
    assert worker.running == []


async def test_a_sub_job_inserted_when_its_parent_task_has_gone_goes_at_once(world: World) -> None:
    job_id = await world.submit(sub(step("a")), told=False)
    slow = Stepper(world.driver, intents.follow([await begun(world, job_id)]))
    await slow.until(inserts_subjob)
    assert await world.cancel(job_id)
    await world.settle()
    await world.driver.follow(await deleted(world, job_id))
    assert await nothing_left(world)
    await slow.finish()
    assert await nothing_left(world)


async def test_a_sub_job_that_came_and_went_is_not_made_again(world: World) -> None:
    """Whoever made it died before the task that it belongs to was told, so that somebody else follows its intent."""
    await world.worker()
    job_id = await world.submit(sub(step("a"), detached=True), told=False)
    slow = Stepper(world.driver, intents.follow([await begun(world, job_id)]))
    await slow.until(inserts_subjob)
    await slow.take()
    (child,) = [job for job in await world.store.find(JobDocument, {}) if job.id != job_id]
    await world.driver.follow([child])
    seen: list[Run] = []
    await world.run(seen.append)
    assert await world.state(child.id) == "COMPLETED"
    await world.driver.follow(await deleted(world, child.id))
    for _ in range(4):
        await world.tick()
        await world.run(seen.append)
    assert [run.name for run in seen] == ["a"]
    assert await world.state(job_id) == "COMPLETED"
    assert await world.store.count(JobDocument, {}) == 1


async def test_whoever_looked_before_a_job_was_deleted_and_is_late_makes_none(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), told=False)
    made = msgspec.structs.replace(await world.job(job_id), body_hash="of a key")
    await world.store.delete(JobDocument, {"id": job_id})
    await world.store.insert(made)
    await world.driver.follow([made])
    seen: list[Run] = []
    await world.run(seen.append)
    await world.driver.follow(await deleted(world, job_id))
    assert await world.store.insert(made), "it is late, and has not looked again"
    for _ in range(4):
        await world.tick()
        await world.run(seen.append)
    assert len(seen) == 1
    assert await nothing_left(world)


async def test_whoever_begins_a_sub_job_looks_whether_somebody_waits_for_it(world: World) -> None:
    job_id = await world.submit(sub(step("a")), told=False)
    slow = Stepper(world.driver, intents.follow([await begun(world, job_id)]))
    await slow.until(inserts_subjob)
    assert await world.cancel(job_id)
    await world.settle()
    await slow.take()
    (child,) = await children(world)
    await world.driver.follow([child])
    assert await world.tasks(child.id) == []
    assert await world.state(child.id) == "CANCELLED"


async def test_what_an_intent_may_have_made_is_withdrawn_before_it_is_dropped(world: World) -> None:
    job_id = await world.submit(parallel(step("a"), parallel(step("b"))), told=False)
    composite = await begun(world, job_id)
    slow = Stepper(world.driver, intents.follow([composite]))
    await slow.until(lambda effect: isinstance(effect, InsertMany))
    (cancelled,) = await world.driver.carry_out(withdrawal.withdraw([composite]))
    await slow.take()
    assert {task.state for task in await world.tasks(job_id)} == {"CANCELLED", "PENDING", "RUNNING"}
    await world.driver.follow([cancelled])
    assert {task.state for task in await world.tasks(job_id)} == {"CANCELLED"}
    assert [task.then for task in await world.tasks(job_id) if task.then] == []


async def test_a_child_that_is_over_when_it_is_inserted_late_is_closed_at_once(
    world: World,
) -> None:
    tasks = [step("a", **NEVER), step("b")]
    job_id = await world.submit(parallel(*tasks), told=False)
    slow = Stepper(world.driver, intents.follow([await begun(world, job_id)]))
    await slow.until(lambda effect: isinstance(effect, InsertMany))
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    assert [task.name for task in await world.tasks(job_id) if task.open] == []


async def test_a_first_task_that_is_over_when_it_is_inserted_late_is_closed_at_once(
    world: World,
) -> None:
    job_id = await world.submit(step("a", **NEVER), step("b", **NEVER), told=False)
    slow = Stepper(world.driver, intents.follow([await world.job(job_id)]))
    await cancelled_before(world, slow, job_id, "a")
    assert [(task.name, task.open) for task in await world.tasks(job_id)] == [("a", False)]


async def test_a_next_task_that_is_over_when_it_is_inserted_late_is_closed_at_once(
    world: World,
) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("z"), step("a", **NEVER), step("b", **NEVER))
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.running[0], send=False)
    ended = await world.driver.carry_out(task_runs.on_run_ended(end))
    await cancelled_before(world, Stepper(world.driver, intents.follow(ended)), job_id, "a")
    tasks = {task.name: task.open for task in await world.tasks(job_id)}
    assert tasks == {"z": False, "a": False}


async def test_whoever_inserts_children_late_withdraws_them_whatever_became_of_them(
    world: World,
) -> None:
    """A composite among them runs as soon as it is inserted, and one that waits may have been granted a run."""
    worker = await world.worker()
    job_id = await world.submit(parallel(step("a"), parallel(step("b")), step("c")), told=False)
    composite = await begun(world, job_id)
    slow = Stepper(world.driver, intents.follow([composite]))
    await slow.until(lambda effect: isinstance(effect, InsertMany))
    (cancelled,) = await world.driver.carry_out(withdrawal.withdraw([composite]))
    await world.driver.follow([cancelled])
    await slow.take()
    await world.driver.outbox.publish_tasks([await world.task(job_id, "a")])
    await worker.take()
    await world.settle()
    assert (await world.task(job_id, "a")).state == "RUNNING"
    await slow.finish()
    assert {task.state for task in await world.tasks(job_id)} == {"CANCELLED"}
    await world.settle()
    assert worker.running == []


async def test_a_child_of_before_a_restart_that_is_inserted_late_does_not_run(world: World) -> None:
    await world.worker()
    tasks = [parallel(step("a", var="x"), step("b")), step("z", env={"X": "{{ tasks.x }}"})]
    job_id = await world.submit(*tasks, told=False)
    slow = Stepper(world.driver, intents.follow([await begun(world, job_id)]))
    await slow.until(lambda effect: isinstance(effect, InsertMany))
    assert await world.cancel(job_id)
    await world.settle()
    assert await world.restart(job_id)
    await world.settle()
    await slow.take()
    seen: list[int] = []
    for _ in range(5):
        await world.tick()
        await world.run(lambda run: seen.append(run.message.restarts))
    assert set(seen) == {1}
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_the_next_attempt_of_before_a_cancel_that_is_inserted_late_is_withdrawn(
    world: World,
) -> None:
    worker = await world.worker()
    job_id = await world.submit(step("a", retry={"limit": 1, "initialDelay": "1s"}))
    await world.settle()
    await worker.take()
    await world.settle()
    end = await worker.end(worker.running[0], "no", send=False)
    (failed,) = await world.driver.carry_out(task_runs.on_run_ended(end))
    slow = Stepper(world.driver, intents.follow([failed]))
    await slow.until(lambda effect: isinstance(effect, Insert))
    assert await world.cancel(job_id)
    await world.settle()
    assert await world.restart(job_id)
    await world.settle()
    await slow.take()
    seen: list[int] = []
    for _ in range(5):
        await world.tick()
        await world.run(lambda run: seen.append(run.message.restarts))
    assert seen == [1]
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


# --- grants -------------------------------------------------------------------------------------------------------


async def claiming(world: World) -> tuple[str, Worker]:
    """A job whose task a worker has taken, and asked for; nobody has heard it yet."""
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    await worker.take()
    return job_id, worker


def refusals(worker: Worker) -> list[str]:
    return [message.reason for message in worker.heard if isinstance(message, Refused)]


async def test_a_task_of_a_job_that_has_ended_is_not_granted(world: World) -> None:
    job_id, worker = await claiming(world)
    await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    await world.settle()
    assert refusals(worker) == ["the job is CANCELLED"]
    assert (await world.task(job_id, "a")).state == "CANCELLED"


async def test_a_task_of_a_lower_restart_is_not_granted(world: World) -> None:
    job_id, worker = await claiming(world)
    await world.store.change(Change(kind=JobDocument, id=job_id, set={"restarts": 1}))
    await world.settle()
    assert refusals(worker) == ["the job was restarted"]
    assert (await world.task(job_id, "a")).state == "CANCELLED"


async def test_a_task_whose_job_is_gone_is_not_granted_but_removed(world: World) -> None:
    job_id, worker = await claiming(world)
    await world.store.delete(JobDocument, {"id": job_id})
    await world.settle()
    assert refusals(worker) == ["there is no such job"]
    assert await world.tasks(job_id) == []


async def test_claims_that_are_handled_together_share_a_look_at_their_jobs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await world.submit(step("a")) for _ in range(5)]
    find, asked = world.store.find, []

    async def counted(kind: Any, where: Any, *args: Any, **options: Any) -> Any:
        asked.append(where)
        return await find(kind, where, *args, **options)

    monkeypatch.setattr(world.store, "find", counted)
    looks = world.driver._looks
    found = await asyncio.gather(*(looks.look(job_id) for job_id in [*jobs, "none"]))
    assert [job.id if job else None for job in found] == [*jobs, None]
    assert len(asked) == 1
    await asyncio.gather(looks.look(jobs[0]), looks.look(jobs[1]))
    assert len(asked) == 2


# --- the sweeper --------------------------------------------------------------------------------------------------


async def test_what_is_not_to_go_on_is_not_sent_again(world: World) -> None:
    """Its job has ended, and whoever is to cancel what is below has not come to it."""
    job_id = await world.submit(step("a"), told=False)
    await begun_and_unsent(world, job_id)
    world.clock.advance(11)
    await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    await world.sweep()
    assert world.audit.states((await world.task(job_id, "a")).id) == ["CANCELLED"]


async def begun_and_unsent(world: World, job_id: str) -> None:
    slow = Stepper(world.driver, intents.follow([await world.job(job_id)]))
    await slow.until(changes(JobDocument, state="SCHEDULED"))
    await slow.take()
    assert (await world.task(job_id, "a")).state == "PENDING"


async def test_what_is_open_of_a_lower_restart_is_found(world: World) -> None:
    job_id = await world.submit(step("a"))
    await world.settle()
    fields = {"restarts": 1, "state": "RUNNING"}
    await world.store.change(Change(kind=JobDocument, id=job_id, set=fields))
    await world.sweep()
    assert (await world.task(job_id, "a")).state == "CANCELLED"
    assert world.counts()["swept_lower_restarts"] == 1


async def test_what_a_restart_begins_while_a_sweep_looks_is_left_alone(world: World) -> None:
    """The sweep read the jobs that have ended before this one was restarted, and its tasks after that."""
    await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    assert await world.cancel(job_id)
    await world.settle()
    slow = Stepper(world.driver, orphans.open_under_ended())
    await slow.until(lambda effect: getattr(effect, "kind", None) is TaskDocument)
    assert await world.restart(job_id)
    await world.settle()
    await slow.finish()
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    assert "swept_open_under_ended" not in world.counts()


async def test_what_waits_for_a_slot_is_left_to_who_is_cancelling_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawal, "BATCH", 3)
    each = {"list": "1..7", "concurrency": 1, "task": sub(step("a"))}
    job_id = await world.submit({"name": "each", "each": each})
    await world.settle()
    cancelled = await world.driver.carry_out(job_ends.cancelled_by_user(await world.job(job_id)))
    assert cancelled is not None
    slow = Stepper(world.driver, intents.follow([cancelled]))
    await slow.until(changes(JobDocument))
    assert not (await world.task(job_id, "each")).active
    await world.sweep()
    assert [what for what in world.counts() if "swept" in what] == []
    await slow.finish()
    await world.settle()
    assert {task.state for task in await world.tasks(job_id)} == {"CANCELLED"}


@pytest.mark.parametrize("gone", [False, True])
async def test_what_waits_for_a_slot_of_what_ended_is_found_however_late(
    world: World, gone: bool
) -> None:
    """Nobody looked for ten minutes, or the store's clock jumped."""
    each = {"list": "{{ 1..3 }}", "concurrency": 1, "task": step("a")}
    job_id = await world.submit({"name": "each", "each": each})
    await world.settle()
    each_id = (await world.task(job_id, "each")).id
    over = {"state": "CANCELLED", "ended_at": world.store.now()}
    not_open = {**over, "active": False, "open": False}
    for task in await world.tasks(job_id):
        if not task.hold:
            await world.store.change(Change(kind=TaskDocument, id=task.id, set=not_open))
    await world.store.change(Change(kind=JobDocument, id=job_id, set=over))
    if gone:
        await world.store.delete(TaskDocument, {"id": each_id})
        await world.store.delete(JobDocument, {"id": job_id})
    world.clock.advance(700)
    await world.sweep()
    left = await world.store.find(TaskDocument, {"slot_of": each_id, "active": True})
    assert left == []
    assert world.counts()["swept_open_under_ended"] == 1


@pytest.mark.parametrize("parent", ["ended", "gone", "of a lower restart"])
async def test_a_sub_job_that_nobody_waits_for_is_found(world: World, parent: str) -> None:
    job_id = await world.submit(sub(step("a")))
    await world.settle()
    task = await world.task(job_id, "sub")
    if parent == "gone":
        await world.store.delete(TaskDocument, {"id": task.id})
    elif parent == "ended":
        ended = {"state": "CANCELLED", "active": False, "open": False}
        await world.store.change(Change(kind=TaskDocument, id=task.id, set=ended))
    else:
        await world.store.change(Change(kind=JobDocument, id=job_id, set={"restarts": 1}))
        await world.store.change(Change(kind=TaskDocument, id=task.id, set={"open": False}))
    await world.sweep()
    found = [job.state for job in await children(world)]
    assert found == ([] if parent == "gone" else ["CANCELLED"])
    assert world.counts()["swept_lost_subjob"] == 1


async def test_a_sub_job_that_a_user_restarted_after_its_parent_ended_is_left_alone(
    world: World,
) -> None:
    await world.worker()
    job_id = await world.submit(sub(step("a")))
    await world.run(lambda _: "broken")
    (child,) = await children(world)
    assert await world.restart(child.id)
    await world.settle()
    for _ in range(3):
        await world.tick()
    assert "swept_lost_subjob" not in world.counts()
    await world.run()
    assert [job.state for job in await children(world)] == ["COMPLETED"]
    assert await world.state(job_id) == "FAILED"


# --- tasks.<var> --------------------------------------------------------------------------------------------------


async def test_values_of_before_a_restart_are_not_those_of_what_runs_anew(world: World) -> None:
    """The restart begins at the composite: what its children gave before counts no more."""
    await world.worker()
    bad = step("bad", env={"Y": "{{ tasks.y }}"})
    job_id = await world.submit(
        step("first", var="x"),
        parallel(step("a", var="y"), bad),
        output="{{ tasks.x }} {{ tasks.y }}",
    )
    await world.run(lambda run: "no" if run.name == "bad" else None)
    assert await world.state(job_id) == "FAILED"
    assert await world.restart(job_id)
    job = await world.job(job_id)
    assert (job.restarts, job.restarted_from) == (1, 2)
    await world.settle()
    evaluated = (await world.task(job_id, "bad")).evaluated
    assert evaluated is not None
    assert evaluated.env == {"Y": ""}
    await world.run()
    assert (await world.job(job_id)).result == "first a"
    await world.check_at_rest()
