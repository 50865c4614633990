"""Claim and grant: one run at a time, whatever comes twice, late, or from nowhere."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.engine import lost_runs, task_runs
from shared.model.documents import Document, LogPartDocument, TaskDocument
from shared.model.messages import BeatFirst, Claim, Granted, Message, Refused
from shared.model.queries import Where
from tests.unit.engine.hands import Run, Worker
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


async def asked(world: World, **fields: object) -> tuple[str, Worker, Run]:
    """A task whose delivery a worker holds, and has not asked for yet."""
    worker = await world.worker()
    job_id = await world.submit(step("a", **fields))
    await world.settle()
    (run,) = await worker.take(ask=False)
    return job_id, worker, run


async def answers(world: World, worker: Worker, *claims: Claim) -> list[Message]:
    """Ask, and return what is answered."""
    before = len(worker.heard)
    for claim in claims:
        await world.driver.handle(task_runs.on_claim(claim))
    await worker.hear()
    return worker.heard[before:]


async def test_a_claim_is_granted(world: World) -> None:
    job_id, worker, run = await asked(world)
    answer = await answers(world, worker, worker.claim_of(run))
    assert answer == [Granted(task_id=run.task_id, nonce=run.nonce, run=1)]
    task = await world.task(job_id, "a")
    assert (task.state, task.node_id, task.nonce, task.run) == ("RUNNING", "w", run.nonce, 1)
    assert task.started_at == world.clock.now
    assert task.scheduled_at is not None


async def test_a_grant_may_come_before_the_mark(world: World) -> None:
    """The task is still PENDING: its publish is confirmed, the mark not written yet."""
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    while await world.coordinators[0].handle_one():
        pass
    assert (await world.task(job_id, "a")).state == "PENDING"
    (run,) = await worker.take(ask=False)
    await world.driver.handle(task_runs.on_claim(worker.claim_of(run)))
    assert (await world.task(job_id, "a")).state == "RUNNING"
    await world.settle()
    assert (await world.task(job_id, "a")).scheduled_at == world.clock.now
    await world.run()
    await world.check_at_rest()


async def test_the_same_nonce_gets_the_same_answer(world: World) -> None:
    job_id, worker, run = await asked(world)
    claim = worker.claim_of(run)
    assert len(set(map(str, await answers(world, worker, claim, claim, claim)))) == 1
    assert (await world.task(job_id, "a")).run == 1


async def test_another_nonce_is_refused_while_a_run_counts(world: World) -> None:
    _, worker, run = await asked(world)
    await answers(world, worker, worker.claim_of(run))
    other = await world.worker("other")
    claim = Claim(
        task_id=run.task_id, job_id=run.message.job_id, nonce="n", node_id="other", beat=1
    )
    (answer,) = await answers(world, other, claim)
    assert isinstance(answer, Refused)
    assert "elsewhere" in answer.reason


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "gone"])
async def test_a_claim_for_what_is_over_is_refused(world: World, how: str) -> None:
    job_id, worker, run = await asked(world)
    if how == "cancelled":
        await world.cancel(job_id)
        await world.settle()
    elif how == "gone":
        await world.store.delete(TaskDocument, {"id": run.task_id})
    else:
        await answers(world, worker, worker.claim_of(run))
        await worker.end(run, None if how == "completed" else "no")
        await world.settle()
        run.nonce = "another"
    (answer,) = await answers(world, worker, worker.claim_of(run))
    assert isinstance(answer, Refused)


async def test_a_node_that_nobody_knows_is_told_to_beat_first(world: World) -> None:
    job_id, _worker, run = await asked(world)
    claim = Claim(task_id=run.task_id, nonce="n", node_id="stranger", beat=0)
    await world.broker.slot("x-stranger")
    await world.driver.handle(task_runs.on_claim(claim))
    slot = await world.broker.slot("x-stranger")
    message = world.codec.decode((await slot.take()).body)
    assert message == BeatFirst(task_id=run.task_id, nonce="n")
    assert (await world.task(job_id, "a")).state == "SCHEDULED"


async def test_a_lease_that_ends_soon_is_renewed_before_a_grant(world: World) -> None:
    job_id, worker, run = await asked(world)
    world.clock.advance(16)
    assert isinstance((await answers(world, worker, worker.claim_of(run)))[0], BeatFirst)
    await world.settle()  # it beats and asks again
    assert (await world.task(job_id, "a")).state == "RUNNING"


async def test_two_workers_that_hold_copies_get_one_grant(world: World) -> None:
    _, worker, run = await asked(world)
    other = await world.worker("other")
    mine = worker.claim_of(run)
    theirs = Claim(
        task_id=run.task_id, job_id=run.message.job_id, nonce="n", node_id="other", beat=1
    )
    slow = Stepper(world.driver, task_runs.on_claim(mine))
    await slow.until(changes(TaskDocument, state="RUNNING"))
    assert isinstance((await answers(world, other, theirs))[0], Granted)
    await slow.finish()
    await worker.hear()
    assert isinstance(worker.heard[-1], Refused)
    world.audit.check()


async def test_a_nonce_whose_run_was_handed_back_is_not_granted_again(world: World) -> None:
    """Its question, asked twice, is answered late."""
    job_id, worker, run = await asked(world)
    claim = worker.claim_of(run)
    await answers(world, worker, claim)
    await worker.hand_back(run)
    await world.settle()
    assert (await world.task(job_id, "a")).state == "SCHEDULED"
    (answer,) = await answers(world, worker, claim)
    assert isinstance(answer, Refused)
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert (await world.task(job_id, "a")).lost == 0
    await world.check_at_rest()


async def test_a_nonce_of_an_older_run_is_not_granted_again(world: World) -> None:
    """A coordinator that was frozen gave its question back after two more runs had come to nothing."""
    job_id, worker, run = await asked(world)
    claim = worker.claim_of(run)
    await answers(world, worker, claim)
    await worker.hand_back(run)
    await world.settle()
    (second,) = await worker.take()
    await world.settle()
    await worker.hand_back(second)
    await world.settle()
    assert (await world.task(job_id, "a")).state == "SCHEDULED"
    (answer,) = await answers(world, worker, claim)
    assert answer == Refused(task_id=run.task_id, nonce=run.nonce, reason="this run is over")
    await world.heal(60)
    assert await world.state(job_id) == "COMPLETED"
    assert (await world.task(job_id, "a")).run == 3
    world.audit.check()
    await world.check_at_rest()


async def test_a_nonce_whose_run_was_lost_by_lease_is_granted_the_same_run(world: World) -> None:
    job_id, worker, run = await asked(world)
    claim = worker.claim_of(run)
    await world.driver.handle(task_runs.on_claim(claim))  # the answer is on its way
    task = await world.task(job_id, "a")
    await world.driver.handle(
        lost_runs.back_to_pending(task, lost_runs.LOST_BY_LEASE, "why", costs=True)
    )
    (first, second) = await answers(world, worker, claim)
    assert first == second == Granted(task_id=run.task_id, nonce=run.nonce, run=1)
    task = await world.task(job_id, "a")
    assert (task.state, task.run, task.lost) == ("RUNNING", 1, 0)
    await world.run()
    await world.check_at_rest()


async def test_a_grant_that_nobody_waits_for_is_handed_back(world: World) -> None:
    job_id, worker, run = await asked(world)
    await worker.claim(run)
    worker.lose_channel(run)
    await run.delivery.requeue()
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    task = await world.task(job_id, "a")
    assert (task.run, task.lost) == (2, 0)
    await world.check_at_rest()


async def test_copies_of_a_message_do_no_harm(world: World) -> None:
    worker = await world.worker(slots=3)
    job_id = await world.submit(step("a"), step("b"))
    await world.settle()
    task = await world.task(job_id, "a")
    await world.driver.outbox.publish_tasks([task, task])
    await world.settle()
    assert len(await worker.take()) == 3
    await world.settle()
    assert len(worker.running) == 1
    assert worker.asked == []
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    assert [task.run for task in await world.tasks(job_id)] == [1, 1]
    await world.check_at_rest()


async def test_a_task_of_before_a_restart_is_refused(world: World) -> None:
    job_id, worker, run = await asked(world)
    await world.cancel(job_id)
    await world.settle()
    await world.restart(job_id)
    await world.settle()
    (answer,) = await answers(world, worker, worker.claim_of(run))
    assert isinstance(answer, Refused)
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_composites_can_not_be_claimed(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit({"name": "p", "parallel": {"tasks": [step("a")]}})
    await world.settle()
    parent = await world.task(job_id, "p")
    claim = Claim(task_id=parent.id, nonce="n", node_id="w", beat=1)
    assert isinstance((await answers(world, worker, claim))[0], Refused)


async def test_no_claim_waits_until_the_log_of_an_older_run_is_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, worker, run = await asked(world)
    await answers(world, worker, worker.claim_of(run))
    parts = [
        task_runs.log_part(run.task_id, job_id, 1, number, "x", 1) for number in range(1, 2_502)
    ]
    await world.store.append_log(parts)
    await worker.hand_back(run)
    await world.settle()
    limits: list[int | None] = []
    real, may = world.store.delete, asyncio.Event()

    async def delete(kind: type[Document], where: Where, limit: int | None = None) -> int:
        if kind is LogPartDocument:
            limits.append(limit)
            await may.wait()
        return await real(kind, where, limit)

    monkeypatch.setattr(world.store, "delete", delete)
    (again,) = await worker.take(ask=False)
    (answer,) = await answers(world, worker, worker.claim_of(again))
    assert isinstance(answer, Granted)
    assert answer.run == 2
    may.set()
    await world.settle()
    assert limits == [1_000] * 3
    assert await world.store.count(LogPartDocument, {"task_id": run.task_id}) == 0
