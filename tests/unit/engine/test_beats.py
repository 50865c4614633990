"""Beats: leases, epochs, and what differs between a worker's list and the store's grants."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coordinator.commands import JobCommands
from coordinator.engine import beats, flow, leases, lost_runs, task_runs
from coordinator.engine.flow import Started
from shared.model.documents import MICROS_PER_SECOND, NodeDocument, TaskDocument
from shared.model.messages import Beat, Drain, EndStored, NodeStored, SendEnd, Stop
from shared.model.states import NodeKind, RunRole
from tests.unit.engine.hands import Run, Worker
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step


async def running(world: World) -> tuple[str, Worker, Run]:
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    await worker.take()
    await world.settle()
    (run,) = worker.running
    return job_id, worker, run


async def node(world: World, name: str = "w") -> NodeDocument:
    found = await world.store.get(NodeDocument, name)
    assert found is not None
    return found


async def close_epoch(world: World) -> None:
    await world.driver.handle(beats.close_epoch(await node(world)))


async def test_a_beat_renews_the_lease(world: World) -> None:
    worker = await world.worker()
    assert (await node(world)).lease_until == world.clock.now + 30 * MICROS_PER_SECOND
    world.clock.advance(7)
    await worker.beat()
    await world.settle()
    assert (await node(world)).lease_until == world.clock.now + 30 * MICROS_PER_SECOND
    assert (await node(world)).beat == 2


async def test_a_worker_is_told_that_it_is_known(world: World) -> None:
    worker = await world.worker()
    await world.settle()
    assert worker.heard == [NodeStored()]
    await worker.beat()
    await world.settle()
    assert len(worker.heard) == 1
    await close_epoch(world)
    await worker.beat()
    await world.settle()
    assert worker.heard == [NodeStored()] * 2


async def test_a_beat_that_a_later_one_overtook_is_dropped_whole(world: World) -> None:
    _, worker, run = await running(world)
    late = worker.next_beat()
    late = Beat(**{name: getattr(late, name) for name in late.__struct_fields__} | {"held": []})
    await worker.beat()
    await worker.beat()
    await world.settle()
    before = await node(world)
    world.clock.advance(3)
    await world.driver.handle(beats.on_beat(late))
    assert await node(world) == before
    assert (await world.store.get(TaskDocument, run.task_id)).state == "RUNNING"  # type: ignore[union-attr]


async def test_a_lost_grant_is_told_again_by_the_next_beat(world: World) -> None:
    _job_id, worker, run = await running(world)
    run.role = RunRole.ASKED  # it never heard of it
    worker.started.clear()
    await worker.beat()
    await world.settle()
    assert worker.started == [(run.nonce, 1)]


async def test_a_lost_end_is_asked_for(world: World) -> None:
    job_id, worker, run = await running(world)
    await worker.end(run, result="r", send=False)
    await worker.beat()
    await world.settle()
    assert SendEnd(nonces=[run.nonce]) in worker.heard
    assert (await world.job(job_id)).state == "COMPLETED"
    assert not worker.runs
    await world.check_at_rest()


async def test_an_end_that_is_stored_is_told_so_again(world: World) -> None:
    _, worker, run = await running(world)
    await worker.end(run)
    await world.settle()
    worker.runs[run.nonce] = run  # it never heard that
    await worker.beat()
    await world.settle()
    assert not worker.runs
    assert worker.heard[-1] == EndStored(nonces=[run.nonce])


async def test_a_run_that_is_not_granted_is_stopped(world: World) -> None:
    job_id, worker, run = await running(world)
    await world.cancel(job_id)
    for coordinator in world.coordinators:
        await coordinator.flush()
    await worker.hear(lost=True)  # the Stop
    await worker.beat()
    await world.settle()
    assert worker.heard[-1] == Stop(nonces=[run.nonce])
    assert not worker.runs


async def test_a_run_of_what_was_deleted_is_stopped(world: World) -> None:
    _, worker, run = await running(world)
    await world.store.delete(TaskDocument, {"id": run.task_id})
    await worker.beat()
    await world.settle()
    assert not worker.runs


async def test_a_granted_nonce_that_is_missing_is_lost_from_the_second_beat_on(
    world: World,
) -> None:
    job_id, worker, run = await running(world)
    worker.lose_channel(run)
    del worker.runs[run.nonce]
    await worker.beat()
    await world.settle()
    assert (await world.task(job_id, "a")).state == "RUNNING"
    await worker.beat()
    await world.settle()
    task = await world.task(job_id, "a")
    assert (task.state, task.lost) == ("SCHEDULED", 1)
    await run.delivery.ack()
    await world.run()
    assert (await world.task(job_id, "a")).run == 2
    await world.check_at_rest()


async def test_the_end_of_a_run_that_was_missing_does_not_count(world: World) -> None:
    """Not lost by lease: nobody may take it back."""
    job_id, worker, run = await running(world)
    task = await world.task(job_id, "a")
    await world.driver.handle(
        lost_runs.back_to_pending(task, lost_runs.GIVEN_BACK, "why", costs=True)
    )
    await worker.end(run, result="late")
    await world.settle()
    assert (await world.task(job_id, "a")).state == "SCHEDULED"
    await world.run()
    assert (await world.task(job_id, "a")).run == 2
    await world.check_at_rest()


async def test_closing_an_epoch_loses_its_runs(world: World) -> None:
    job_id, _worker, _run = await running(world)
    await close_epoch(world)
    await world.settle()
    task = await world.task(job_id, "a")
    assert (task.state, task.lost, task.lost_by, task.run) == ("SCHEDULED", 1, "lease", 1)
    assert (await node(world)).closed


async def test_a_beat_after_that_opens_the_next_epoch_and_takes_the_run_back(world: World) -> None:
    job_id, worker, run = await running(world)
    await close_epoch(world)
    await worker.beat()
    await world.settle()
    assert ((await node(world)).epoch, (await node(world)).closed) == (2, False)
    task = await world.task(job_id, "a")
    assert (task.state, task.lost, task.lost_by) == ("RUNNING", 0, None)
    assert (task.run, task.epoch, task.nonce) == (1, 2, run.nonce)
    await world.run()
    assert (await world.task(job_id, "a")).run == 1
    await world.check_at_rest()


async def test_an_end_is_taken_back_too(world: World) -> None:
    job_id, worker, run = await running(world)
    await worker.end(run, result="r", send=False)
    await close_epoch(world)
    await worker.beat()
    await world.settle()
    assert (await world.task(job_id, "a")).result == "r"
    assert await world.state(job_id) == "COMPLETED"


async def test_nothing_is_taken_back_that_was_granted_again(world: World) -> None:
    job_id, worker, _run = await running(world)
    await close_epoch(world)
    other = await world.worker("other")
    await other.take()
    await world.settle()
    await worker.beat()
    await world.settle()
    assert not worker.runs
    task = await world.task(job_id, "a")
    assert (task.state, task.node_id, task.run) == ("RUNNING", "other", 2)
    await world.run()
    await world.check_at_rest()


async def test_two_beats_side_by_side_do_not_stop_the_run_that_one_takes_back(world: World) -> None:
    job_id, worker, run = await running(world)
    await close_epoch(world)
    first, second = worker.next_beat(), worker.next_beat()
    slow = Stepper(world.driver, beats.on_beat(first))
    await slow.until(changes(TaskDocument, state="RUNNING"))
    await world.driver.handle(beats.on_beat(second))
    await slow.finish()
    await world.settle()
    assert [run.nonce for run in worker.running] == [run.nonce]
    assert not any(isinstance(message, Stop) for message in worker.heard)
    assert (await world.task(job_id, "a")).state == "RUNNING"


async def test_a_beat_that_sees_a_run_taken_back_meanwhile_does_not_stop_it(world: World) -> None:
    job_id, worker, run = await running(world)
    await close_epoch(world)
    first, second = worker.next_beat(), worker.next_beat()
    slow = Stepper(world.driver, beats.on_beat(first))
    await slow.until(lambda effect: getattr(effect, "id", None) == run.task_id)
    await world.driver.handle(beats.on_beat(second))
    await slow.finish()
    await world.settle()
    assert not any(isinstance(message, Stop) for message in worker.heard)
    assert (await world.task(job_id, "a")).state == "RUNNING"


async def test_a_run_that_is_kept_moves_to_the_present_epoch(world: World) -> None:
    """Whoever closed the epoch died before it lost the runs."""
    job_id, worker, _run = await running(world)
    closing = Stepper(world.driver, beats.close_epoch(await node(world)))
    await closing.until(lambda effect: hasattr(effect, "order"))
    await worker.beat()
    await world.settle()
    task = await world.task(job_id, "a")
    assert (task.state, task.epoch, task.lost) == ("RUNNING", 2, 0)
    await closing.finish()
    await world.settle()
    assert (await world.task(job_id, "a")).state == "RUNNING"


async def test_a_lease_that_was_renewed_is_not_closed(world: World) -> None:
    _, worker, _ = await running(world)
    seen = await node(world)
    world.clock.advance(1)
    await worker.beat()
    await world.settle()
    await world.driver.handle(beats.close_epoch(seen))
    assert not (await node(world)).closed


async def test_runs_left_by_whoever_died_closing_an_epoch_are_found(world: World) -> None:
    job_id, worker, _ = await running(world)
    closing = Stepper(world.driver, beats.close_epoch(await node(world)))
    await closing.until(lambda effect: hasattr(effect, "order"))
    await worker.kill()
    await world.sweep()
    assert (await world.task(job_id, "a")).lost_by == "lease"


async def test_coordinators_are_nodes_too(world: World) -> None:
    beat = Beat(node_id="c", node_kind=NodeKind.COORDINATOR, number=1, name="c")
    await world.driver.handle(beats.on_beat(beat))
    assert (await node(world, "c")).queue is None


async def test_a_beat_sees_to_it_that_the_job_of_a_granted_task_runs(world: World) -> None:
    """Whoever granted it died before that."""
    worker = await world.worker()
    job_id = await world.submit(step("a"))
    await world.settle()
    (run,) = await worker.take(ask=False)
    dying = Stepper(world.driver, task_runs.on_claim(worker.claim_of(run)))
    await dying.until(lambda effect: isinstance(effect, Started))
    await worker.hear()
    assert await world.state(job_id) == "SCHEDULED"
    await worker.beat()
    await world.settle()
    assert await world.state(job_id) == "RUNNING"


async def test_an_end_that_waits_in_a_long_queue_is_asked_for_ever_more_seldom(
    world: World,
) -> None:
    _, worker, run = await running(world)
    await worker.end(run, send=False)
    worker.answers_ends = False
    asked = []
    for number in range(1, 25):
        worker.heard.clear()
        await worker.beat()
        await world.settle()
        if SendEnd(nonces=[run.nonce]) in worker.heard:
            asked.append(number)
    assert asked == [1, 2, 4, 8, 16, 24]


async def test_a_beat_asks_once_about_the_jobs_of_all_its_runs(world: World) -> None:
    worker = await world.worker(slots=12)
    for _ in range(12):
        await world.submit(step("a"))
    await world.settle()
    await worker.take()
    await world.settle()
    world.driver._begun.clear()
    world.driver._jobs.clear()
    asked = []
    steps = world.driver._steps
    for kind in (flow.Get, flow.Find, flow.Recall):

        async def counted(effect: Any, take: Any = steps[kind]) -> Any:
            asked.append(effect)
            return await take(effect)

        steps[kind] = counted
    await worker.beat()
    await world.settle()
    assert len(worker.runs) == 12
    assert len(asked) <= 4


@pytest.mark.parametrize("on", [True, False])
async def test_a_drain_whose_message_was_lost_is_told_again(world: World, on: bool) -> None:
    worker = await world.worker()
    commands = JobCommands(world.driver, world.broker, world.codec)
    worker.draining = not on
    await commands.drain(worker.node_id, on)
    await world.settle()
    worker.heard.clear()
    await worker.beat()
    await world.settle()
    assert Drain(on=on) in worker.heard
    worker.draining = on
    worker.heard.clear()
    await worker.beat()
    await world.settle()
    assert not [each for each in worker.heard if isinstance(each, Drain)]
    assert (await node(world)).draining is on


async def _succeed(world: World, killed: Worker, *ended: Run) -> Worker:
    """Have a process start on the host of one that was killed, whose ends `ended` it found untold."""
    successor = Worker(world.broker, world.codec, "successor", {"default": 1})
    for run in ended:
        run.role = RunRole.ENDED
        successor.runs[run.nonce] = run
    beat = msgspec.structs.replace(successor.next_beat(), predecessors=[killed.node_id])
    await world.driver.handle(beats.on_beat(beat))
    return successor


async def test_what_a_killed_process_ran_is_lost_as_soon_as_it_is_started_again(
    world: World,
) -> None:
    _, killed, run = await running(world)
    await _succeed(world, killed)
    task = await world.store.get(TaskDocument, run.task_id)
    assert task is not None
    assert task.state in ("PENDING", "SCHEDULED")
    assert [lost.why for lost in task.runs] == ["its worker was killed, and started again"]
    assert task.lost == 1


async def test_an_end_that_a_killed_process_did_not_tell_counts(world: World) -> None:
    job_id, killed, run = await running(world)
    successor = await _succeed(world, killed, run)
    task = await world.store.get(TaskDocument, run.task_id)
    assert task is not None
    assert (task.state, task.node_id, task.lost) == ("RUNNING", "successor", 0)
    await world.driver.handle(leases.runs_of_closed_epochs())
    assert await world.states(job_id) == {"1": "RUNNING"}
    assert successor.heard == []


async def test_no_late_beat_opens_an_epoch_of_a_node_that_was_succeeded(world: World) -> None:
    _, killed, _ = await running(world)
    late = killed.next_beat()
    await _succeed(world, killed)
    await world.driver.handle(beats.on_beat(late))
    assert (await node(world)).closed


async def test_nor_does_the_first_beat_of_one_that_was_never_heard_of(world: World) -> None:
    unheard = Worker(world.broker, world.codec, "unheard", {"default": 1})
    first = unheard.next_beat()
    await _succeed(world, unheard)
    await world.driver.handle(beats.on_beat(first))
    found = await node(world, "unheard")
    assert (found.closed, found.succeeded_by) == (True, "successor")
