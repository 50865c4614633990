"""Ends of runs: applied once, however often and late they come; hand-backs and losses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coordinator.engine import lost_runs, task_runs
from shared.errors import Unreadable, Unstorable
from shared.model.documents import LogPartDocument, TaskDocument
from shared.model.messages import EndStored, HandedBack, RunEnded, Stop
from shared.model.queries import Change
from tests.unit.engine.hands import Run, Worker
from tests.unit.engine.world import World, step


async def running(world: World, *tasks: dict[str, object]) -> tuple[str, Worker, Run]:
    worker = await world.worker()
    job_id = await world.submit(*(tasks or (step("a"), step("b"))))
    await world.settle()
    await worker.take()
    await world.settle()
    (run,) = worker.running
    return job_id, worker, run


async def test_an_end_is_applied_once(world: World) -> None:
    job_id, worker, run = await running(world)
    end = await worker.end(run, result="r", send=False)
    for _ in range(3):
        await worker.send("completed", end)
    await world.settle()
    task = await world.task(job_id, "a")
    assert (task.state, task.result, task.exit_code) == ("COMPLETED", "r", 0)
    assert (await world.job(job_id)).position == 2
    assert world.audit.ends() == {task.id: 1}
    assert not worker.runs


def refuse(world: World, patch: pytest.MonkeyPatch, *texts: str) -> None:
    """Have the store be one that can't keep results or errors with these texts."""
    change = world.store.change

    async def refusing(what: Change[Any]) -> Any:
        for name in ("result", "error"):
            if any(text in (what.set.get(name) or "") for text in texts):
                raise Unstorable(f"{name}: too large")
        return await change(what)

    patch.setattr(world.store, "change", refusing)


@pytest.mark.parametrize(
    ("end", "field"), [({"result": "big"}, "result"), ({"error": "bad"}, "error")]
)
async def test_an_end_that_can_not_be_stored_is_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, end: dict[str, Any], field: str
) -> None:
    job_id, worker, run = await running(world)
    refuse(world, monkeypatch, "big", "bad")
    await worker.end(run, **end)
    await world.settle()
    task = await world.task(job_id, "a")
    assert (task.state, task.result) == ("FAILED", None)
    assert task.error == f"its end can't be stored: {field}: too large"
    assert await world.state(job_id) == "FAILED"
    assert not worker.runs
    await world.check_at_rest()


async def test_a_result_of_a_sub_job_that_can_not_be_stored_fails_its_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = {"name": "s", "tasks": [step("b")], "output": "big"}
    await world.worker()
    job_id = await world.submit({"name": "a", "subjob": inner})
    change = world.store.change

    async def refusing(what: Change[Any]) -> Any:
        if what.kind is TaskDocument and what.set.get("result") == "big":
            raise Unstorable("result: too large")
        return await change(what)

    monkeypatch.setattr(world.store, "change", refusing)
    await world.run()
    task = await world.task(job_id, "a")
    assert task.state == "FAILED"
    assert (task.error or "").endswith("can't be stored: result: too large")
    assert await world.state(job_id) == "FAILED"
    await world.check_at_rest()


async def test_the_first_end_of_a_run_counts(world: World) -> None:
    job_id, worker, run = await running(world)
    await worker.end(run, result="r")
    failed = RunEnded(
        task_id=run.task_id,
        job_id=job_id,
        run=1,
        nonce=run.nonce,
        node_id="w",
        ok=False,
        error="no",
    )
    await worker.send("error", failed)
    await world.settle()
    assert (await world.task(job_id, "a")).state == "COMPLETED"
    assert world.audit.ends()[run.task_id] == 1


@pytest.mark.parametrize(("number", "nonce"), [(0, None), (2, None), (1, "other")])
async def test_an_end_of_another_run_changes_nothing(
    world: World, number: int, nonce: str | None
) -> None:
    job_id, worker, run = await running(world)
    end = RunEnded(
        task_id=run.task_id,
        job_id=job_id,
        run=number,
        nonce=nonce or run.nonce,
        node_id="w",
        ok=True,
    )
    await worker.send("completed", end)
    await world.settle()
    assert (await world.task(job_id, "a")).state == "RUNNING"
    assert EndStored(nonces=[end.nonce]) in worker.heard


async def test_an_end_after_its_task_was_cancelled_is_forgotten(world: World) -> None:
    job_id, worker, run = await running(world)
    end = await worker.end(run, send=False)
    await world.cancel(job_id)
    await world.settle()
    await worker.send("completed", end)
    await world.settle()
    assert (await world.task(job_id, "a")).state == "CANCELLED"
    assert not worker.runs
    assert world.counts()["end_refused"] == 1
    await world.check_at_rest()


async def test_an_end_keeps_the_last_part_of_its_log(world: World) -> None:
    job_id, worker, run = await running(world)
    end = RunEnded(
        task_id=run.task_id, job_id=job_id, run=1, nonce=run.nonce, node_id="w", ok=True,
        log_parts=1, last_part="the end\n",
    )  # fmt: skip
    await worker.send("completed", end)
    await worker.send("completed", end)
    await world.settle()
    (part,) = await world.store.find(LogPartDocument, {"task_id": run.task_id})
    assert (part.run, part.number, part.contents) == (1, 1, "the end\n")
    assert (await world.task(job_id, "a")).log_parts == 1


async def test_an_end_of_nothing_is_told_stored_and_unreadable_where_nobody_is_known_to_tell_it(
    world: World,
) -> None:
    _, worker, _ = await running(world)
    stranger = RunEnded(task_id="none", job_id="none", run=1, nonce="n", node_id="x", ok=True)
    with pytest.raises(Unreadable):
        await world.driver.handle(task_runs.on_run_ended(stranger))
    end = msgspec.structs.replace(stranger, node_id="w")
    await world.driver.handle(task_runs.on_run_ended(end))
    await world.settle()
    assert EndStored(nonces=["n"]) in worker.heard


async def test_a_run_handed_back_costs_nothing_and_runs_again(world: World) -> None:
    job_id, worker, run = await running(world)
    await worker.hand_back(run)
    await world.settle()
    task = await world.task(job_id, "a")
    assert (task.state, task.lost, task.node_id) == ("SCHEDULED", 0, None)
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    assert (await world.task(job_id, "a")).run == 2
    await world.check_at_rest()


async def test_a_hand_back_of_an_older_run_changes_nothing(world: World) -> None:
    job_id, worker, run = await running(world)
    for number, nonce in ((1, "other"), (0, run.nonce), (2, run.nonce)):
        back = HandedBack(task_id=run.task_id, job_id=job_id, run=number, nonce=nonce, node_id="w")
        await worker.send("error", back)
    await world.settle()
    assert (await world.task(job_id, "a")).state == "RUNNING"


async def test_a_run_whose_container_vanished_is_lost_and_counts(world: World) -> None:
    job_id, worker, run = await running(world)
    await worker.hand_back(run, vanished=True)
    await world.settle()
    assert (await world.task(job_id, "a")).lost == 1
    await world.run()
    assert await world.state(job_id) == "COMPLETED"


async def test_one_run_costs_one_loss_however_often_that_is_told(world: World) -> None:
    job_id, worker, run = await running(world)
    task = await world.task(job_id, "a")
    await world.driver.handle(
        lost_runs.back_to_pending(task, lost_runs.LOST_BY_LEASE, "unheard of", costs=True)
    )
    for _ in range(3):
        back = HandedBack(
            task_id=run.task_id, job_id=job_id, run=1, nonce=run.nonce, node_id="w", vanished=True
        )
        await worker.send("error", back)
    await world.settle()
    lost = await world.task(job_id, "a")
    assert lost.lost == 1
    assert [(run.number, run.why) for run in lost.runs] == [(1, "its worker gave it back")]


async def test_a_task_that_is_lost_too_often_fails(world: World) -> None:
    job_id, worker, _ = await running(world)
    for _ in range(world.bounds.redeliveries + 1):
        await worker.take()
        await world.settle()
        await worker.hand_back(worker.running[0], vanished=True)
        await world.settle()
    job = await world.job(job_id)
    assert job.state == "FAILED"
    assert job.error == "task redelivered too many times: its worker gave it back"
    task = await world.task(job_id, "a")
    assert [run.number for run in task.runs] == [1, 2, 3, 4, 5, 6]
    assert {(run.node_id, run.why) for run in task.runs} == {("w", "its worker gave it back")}
    assert all(0 < run.started_at <= run.ended_at for run in task.runs)
    await world.check_at_rest()


async def test_a_task_lost_too_often_still_has_its_retries(world: World) -> None:
    job_id, worker, _ = await running(world, step("a", retry={"limit": 1}))
    for _ in range(world.bounds.redeliveries + 1):
        await worker.take()
        await world.settle()
        await worker.hand_back(worker.running[0], vanished=True)
        await world.settle()
    await world.heal(20)
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_an_end_that_comes_after_its_run_was_lost_by_lease_counts(world: World) -> None:
    job_id, worker, run = await running(world)
    task = await world.task(job_id, "a")
    await world.driver.handle(
        lost_runs.back_to_pending(task, lost_runs.LOST_BY_LEASE, "why", costs=True)
    )
    await worker.end(run, result="r")
    await world.settle()
    assert (await world.task(job_id, "a")).state == "COMPLETED"
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_an_end_that_comes_after_the_next_run_was_granted_is_forgotten(world: World) -> None:
    job_id, worker, run = await running(world)
    task = await world.task(job_id, "a")
    await world.driver.handle(
        lost_runs.back_to_pending(task, lost_runs.LOST_BY_LEASE, "why", costs=True)
    )
    other = await world.worker("other")
    await other.take()
    await world.settle()
    assert len(other.running) == 1
    await worker.end(run, result="late")
    await world.settle()
    assert (await world.task(job_id, "a")).state == "RUNNING"
    assert not worker.runs
    await world.run()
    assert (await world.task(job_id, "a")).result == "a"
    await world.check_at_rest()


async def test_cancelling_stops_what_runs(world: World) -> None:
    job_id, worker, run = await running(world)
    await world.cancel(job_id)
    await world.settle()
    assert Stop(nonces=[run.nonce], reason="cancelled") in worker.heard
    await world.check_at_rest()


async def test_the_log_of_an_older_run_goes(world: World) -> None:
    job_id, worker, run = await running(world)
    await world.store.append_log([task_runs.log_part(run.task_id, job_id, 1, 1, "old\n", 1)])
    await worker.hand_back(run)
    await world.settle()
    await worker.take()
    await world.settle()
    assert await world.store.find(LogPartDocument, {"task_id": run.task_id}) == []
    assert (await world.store.get(TaskDocument, run.task_id)) is not None
