"""The worker's side of the run protocol (engine spec, The run of a task)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from shared.broker.deliveries import DeliveryBase
from shared.broker.port import Delivery
from shared.errors import BrokerUnavailable, RuntimeUnavailable
from shared.model.messages import (
    BeatFirst,
    Claim,
    DeadNodes,
    Drain,
    Granted,
    HandedBack,
    NodeStored,
    RunEnded,
    SendEnd,
    Stop,
    WhoIsDead,
)
from shared.model.queues import node_queue
from shared.model.states import NodeStatus
from shared.supervision import beside, present
from tests.unit.worker.plant import NODE, HeldRun, Plant
from worker import slot
from worker.runtime.port import Outcome, RunLostError


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    made = Plant(tmp_path)
    await made.start()
    yield made
    await made.close()


async def test_nothing_is_kept_warm_before_the_node_is_known(plant: Plant) -> None:
    await plant.tell(DeadNodes(asked=[], nodes=[]))
    await plant.publish()
    claim = await plant.next(Claim)
    await plant.tell(BeatFirst(task_id=claim.task_id, nonce=claim.nonce))
    await plant.next(Claim)  # it asks again, having heard all that
    assert not plant.runtime.warm.is_set()
    await plant.tell(NodeStored())
    await asyncio.wait_for(plant.runtime.warm.wait(), 10)


@pytest.mark.parametrize(("size", "ok"), [(2_700_000, True), (3 * 1024 * 1024, False)])
async def test_a_result_that_no_message_can_hold_fails_its_task(
    plant: Plant, size: int, ok: bool
) -> None:
    run = await plant.running()
    run.end(Outcome(result="\x01" * size))
    end = await plant.next(RunEnded)
    assert end.ok is ok
    assert (end.error is None) is ok
    if not ok:
        assert end.result is None
        assert "the output can't be sent: in a message it takes 188" in (end.error or "")


@pytest.mark.parametrize("lost", [False, True])
async def test_of_a_long_error_only_the_beginning_and_the_end_are_told(
    plant: Plant, lost: bool
) -> None:
    run = await plant.running()
    run.end(Outcome(error="first" + "\x01" * 3_400_000 + "last", lost=lost))
    said = (await plant.next(HandedBack)).reason if lost else (await plant.next(RunEnded)).error
    assert said is not None
    assert said.startswith("first")
    assert said.endswith("last")
    assert len(said) < 66_000


async def test_beats_go_on_where_the_load_of_the_machine_cannot_be_read(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable() -> float:
        raise OSError(errno.EMFILE, "Too many open files", "/proc/stat")

    monkeypatch.setattr(psutil, "cpu_percent", unreadable)
    before = present.get().restarts["beats"]
    first = (await plant.next_beat(lambda _: True)).number
    await plant.next_beat(lambda beat: beat.number > first + 1)
    assert present.get().restarts["beats"] == before


async def test_a_grant_says_too_that_the_node_is_known(plant: Plant) -> None:
    await plant.running()
    assert plant.runtime.warm.is_set()


async def test_a_granted_task_runs_and_its_end_is_told_with_its_log(plant: Plant) -> None:
    run = await plant.running()
    await run.sink.write(b"hello\n")
    run.end(Outcome(result="42", exit_code=0))
    end = await plant.next(RunEnded)
    assert (end.ok, end.result, end.run, end.node_id) == (True, "42", 1, NODE)
    assert (end.log_parts, end.last_part) == (1, "hello\n")
    async with asyncio.timeout(5):
        await run.removed.wait()


async def test_a_task_does_not_wait_for_long_for_what_the_last_one_left(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "LAST_GONE_WITHIN", 0.3)
    last, gone = await plant.running("last"), asyncio.Event()
    monkeypatch.setattr(last, "remove", gone.wait)
    last.end(Outcome())
    run = await plant.running("next")
    assert not gone.is_set()
    run.end(Outcome())
    await run.removed.wait()
    for each in plant.daemon._workers:
        each.finish()
    async with beside(plant.daemon._slots_over(), "slots") as over:
        done, _ = await asyncio.wait({over}, timeout=0.3)
        assert not done, "what the first run left is not waited for"
        gone.set()
        await over


async def test_nothing_of_a_task_starts_before_its_grant(plant: Plant) -> None:
    await plant.publish()
    claim = await plant.next(Claim)
    beat = await plant.next_beat(lambda beat: bool(beat.held))
    assert [(held.nonce, held.role) for held in beat.held] == [(claim.nonce, "asked")]
    assert beat.held_deliveries == ["task"]
    assert not (await plant.runtime.prepared("task")).started.is_set()


async def test_a_refused_task_is_acknowledged_and_forgotten(plant: Plant) -> None:
    await plant.publish("first")
    claim = await plant.next(Claim)
    await plant.refuse(claim)
    run = await plant.running("second")
    assert not plant.runtime.runs["first"].started.is_set()
    async with asyncio.timeout(5):
        await plant.runtime.runs["first"].removed.wait()
    beat = await plant.next_beat(lambda beat: any(h.role == "running" for h in beat.held))
    assert claim.nonce not in {held.nonce for held in beat.held}
    run.end(Outcome())


async def test_a_refused_claim_leaves_the_clean_up_of_the_run_before_alone(plant: Plant) -> None:
    run = await plant.running("first")
    release = asyncio.Event()
    remove = run.remove

    async def slow_remove() -> None:
        await release.wait()
        await remove()

    run.remove = slow_remove  # type: ignore[method-assign]
    run.end(Outcome())
    await plant.next(RunEnded)
    await plant.publish("second")
    await plant.refuse(await plant.next(Claim))
    await plant.publish("third")
    claim = await plant.next(Claim)
    release.set()
    await plant.grant(claim)
    third = await plant.runtime.prepared("third")
    async with asyncio.timeout(5):
        await run.removed.wait()
        await third.started.wait()


async def test_an_unanswered_claim_is_asked_again_with_the_same_nonce(plant: Plant) -> None:
    await plant.publish()
    first = await plant.next(Claim)
    second = await plant.next(Claim)
    assert (first.nonce, first.task_id) == (second.nonce, second.task_id)
    assert first.beat == second.beat


async def test_told_to_beat_first_it_beats_and_asks_again(plant: Plant) -> None:
    await plant.publish()
    claim = await plant.next(Claim)
    await plant.tell(BeatFirst(task_id=claim.task_id, nonce=claim.nonce))
    await plant.next_beat(lambda beat: beat.number > claim.beat)
    assert (await plant.next(Claim)).nonce == claim.nonce


async def test_a_grant_that_nobody_waits_for_is_handed_back(plant: Plant) -> None:
    await plant.tell(Granted(task_id="task", nonce="forgotten", run=4))
    back = await plant.next(HandedBack)
    assert (back.task_id, back.nonce, back.run, back.vanished) == ("task", "forgotten", 4, False)


async def test_a_stopped_run_ends_and_is_not_told(plant: Plant) -> None:
    run = await plant.running()
    await plant.tell(Stop(nonces=[run.assignment.nonce], reason="cancelled"))
    async with asyncio.timeout(5):
        await run.removed.wait()
    assert run.stopped == "cancelled"
    await plant.next_beat(lambda beat: not beat.held)
    assert plant.heard(RunEnded).empty()
    assert plant.heard(HandedBack).empty()
    (await plant.running("next")).end(Outcome())


async def test_an_end_is_listed_until_it_is_told_stored_and_sent_again_when_asked(
    plant: Plant,
) -> None:
    run = await plant.running()
    run.end(Outcome(error="exit code 3", exit_code=3))
    end = await plant.next(RunEnded)
    assert (end.ok, end.error, end.exit_code) == (False, "exit code 3", 3)
    await plant.next_beat(lambda beat: [held.role for held in beat.held] == ["ended"])
    await plant.tell(SendEnd(nonces=[end.nonce]))
    assert (await plant.next(RunEnded)).nonce == end.nonce
    await plant.stored(end)
    await plant.next_beat(lambda beat: not beat.held)


async def test_a_run_whose_container_vanished_is_handed_back_as_lost(plant: Plant) -> None:
    run = await plant.running()
    run.end(Outcome(lost=True, error="the container is gone"))
    back = await plant.next(HandedBack)
    assert (back.vanished, back.reason) == (True, "the container is gone")


async def test_a_worker_whose_host_fails_takes_nothing_until_its_check_passes(plant: Plant) -> None:
    broken = True

    async def ping() -> None:
        if broken:
            raise RuntimeUnavailable("worker.data: No space left on device")

    plant.runtime.ping = ping  # type: ignore[method-assign]
    run = await plant.running("first")
    run.end(Outcome(lost=True, unprepared=True, error="cannot make /x: No space left on device"))
    back = await plant.next(HandedBack)
    assert (back.vanished, back.reason) == (True, "cannot make /x: No space left on device")
    await plant.next_beat(lambda beat: beat.status == NodeStatus.DOWN)
    await plant.publish("second")
    broken = False
    claim = await plant.next(Claim)
    assert claim.task_id == "second"
    await plant.next_beat(lambda beat: beat.status == NodeStatus.UP)


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "the host's"),
        (OSError(errno.ENOSPC, "No space left on device"), "the host's"),
        (RuntimeError("write /var/lib/docker/x: no space left on device"), "the host's"),
        (RunLostError("the engine does not answer"), "the host's"),
        (MemoryError(), "the host's"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "the task's"),
        (ValueError("embedded null byte"), "the task's"),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed"), "the task's"),
    ],
)
async def test_whose_fault_it_is_that_a_run_is_not_prepared(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, error: Exception, whose: str
) -> None:
    async def fails(*_: object) -> HeldRun:
        raise error

    monkeypatch.setattr(plant.runtime, "prepare", fails)
    await plant.publish("task")
    await plant.grant(await plant.next(Claim))
    if whose == "the host's":
        back = await plant.next(HandedBack)
        assert back.vanished
        assert str(error) in back.reason
    else:
        end = await plant.next(RunEnded)
        assert not end.ok
        assert str(error) in str(end.error)


async def test_an_error_rests_without_secrets(plant: Plant) -> None:
    run = await plant.running(secrets=["first-line\nsecond-line\n"])
    run.end(Outcome(error="exit code 1\n  second-line\nc2Vjb25kLWxpbmU="))
    assert (await plant.next(RunEnded)).error == "exit code 1\n  [REDACTED]\n[REDACTED]="


async def test_a_failure_of_the_worker_itself_loses_the_run_and_not_the_slot(plant: Plant) -> None:
    async def broken() -> Outcome:
        raise OSError("no space left on device")

    await plant.publish("second")
    claim = await plant.next(Claim)
    (await plant.runtime.prepared("second")).run = broken  # type: ignore[method-assign]
    await plant.grant(claim)
    back = await plant.next(HandedBack)
    assert (back.task_id, back.vanished) == ("second", True)
    assert "no space left" in back.reason
    (await plant.running("third")).end(Outcome())


async def test_a_message_that_is_no_task_is_buried_and_the_next_is_taken(plant: Plant) -> None:
    await plant.broker.publish("default", b"\x00 not a message")
    (await plant.running()).end(Outcome())
    dead = await plant.broker.queue("dead")
    assert dead is not None
    assert dead.size == 1


async def test_a_slot_goes_on_where_a_message_could_not_be_buried_at_once(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = asyncio.Event()

    async def refuse(*_: object) -> None:
        blocked.set()
        raise BrokerUnavailable("publishing is blocked")

    with monkeypatch.context() as patch:
        patch.setattr(DeliveryBase, "bury", refuse)
        await plant.broker.publish("default", b"\x00 not a message")
        async with asyncio.timeout(10):
            await blocked.wait()
    (await plant.running()).end(Outcome())
    dead = await plant.broker.queue("dead")
    assert dead is not None
    assert dead.size == 1


async def test_what_a_newer_coordinator_tells_is_passed_over(plant: Plant) -> None:
    await plant.broker.publish(node_queue(NODE), b'{"kind":"fromANewerVersion"}')
    (await plant.running()).end(Outcome())
    dead = await plant.broker.queue("dead")
    assert dead is not None
    assert dead.size == 0


async def test_a_task_of_a_newer_kind_is_left_to_a_newer_worker(plant: Plant) -> None:
    newer = b'{"kind":"fromANewerVersion"}'
    await plant.broker.publish("default", newer)
    taken: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(delivery: Delivery) -> None:
        taken.put_nowait(delivery.body)
        await delivery.ack()

    await plant.broker.subscribe("default", take, prefetch=1)
    async with asyncio.timeout(10):
        assert await taken.get() == newer


async def test_a_slot_never_holds_more_than_one_task(plant: Plant) -> None:
    run = await plant.running("first")
    await plant.publish("second")
    assert await plant.ready() == 1
    assert plant.heard(Claim).empty()
    run.end(Outcome())
    assert (await plant.next(Claim)).task_id == "second"


async def test_told_to_drain_it_takes_nothing_until_told_to_go_on(plant: Plant) -> None:
    await plant.tell(Drain(on=True))
    await plant.next_beat(lambda beat: beat.draining)
    await plant.publish()
    await plant.next_beat(lambda beat: beat.draining)
    assert plant.heard(Claim).empty()
    assert await plant.ready() == 1
    await plant.tell(Drain(on=False))
    assert (await plant.next(Claim)).task_id == "task"


async def test_draining_for_good_waits_for_what_runs_and_for_its_end_being_stored(
    plant: Plant,
) -> None:
    run = await plant.running()
    draining = asyncio.create_task(plant.daemon.drain())
    await plant.next_beat(lambda beat: beat.draining)
    run.end(Outcome(result="done"))
    end = await plant.next(RunEnded)
    assert not draining.done()
    await plant.stored(end)
    async with asyncio.timeout(5):
        await draining


async def test_one_that_drains_for_good_is_not_told_to_go_on(plant: Plant) -> None:
    run = await plant.running()
    draining = asyncio.create_task(plant.daemon.drain())
    await plant.next_beat(lambda beat: beat.draining)
    await plant.tell(Drain(on=False))
    for _ in range(3):
        await plant.next_beat(lambda beat: beat.draining)
    run.end(Outcome())
    await plant.stored(await plant.next(RunEnded))
    async with asyncio.timeout(5):
        await draining


async def test_past_the_grace_time_a_draining_worker_hands_back_what_runs(tmp_path: Path) -> None:
    plant = Plant(tmp_path, drain_timeout=0.2)
    await plant.start()
    try:
        run = await plant.running()
        draining = asyncio.create_task(plant.daemon.drain())
        back = await plant.next(HandedBack)
        assert (back.nonce, back.vanished) == (run.assignment.nonce, False)
        assert run.stopped is not None
        await plant.stored(back)
        async with asyncio.timeout(5):
            await draining
    finally:
        await plant.close()


async def test_it_asks_which_nodes_are_dead_before_it_removes_what_they_left(
    tmp_path: Path,
) -> None:
    plant = Plant(tmp_path)
    plant.runtime.left = ["alive", "dead", NODE]
    await plant.start()
    try:
        question = await plant.next(WhoIsDead)
        assert question.nodes == ["alive", "dead"]
        await plant.tell(DeadNodes(asked=question.nodes, nodes=["dead"]))
        async with asyncio.timeout(5):
            await plant.runtime.swept.wait()
        assert plant.runtime.swept_for == ["dead"]
    finally:
        await plant.close()


async def test_one_sweep_goes_on_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on: list[str] = []

    async def sweep(_: object, mine: str) -> int:
        going_on.append(mine)
        await asyncio.sleep(0.05)
        assert going_on == [mine], "two at a time"
        going_on.clear()
        return 1

    daemon = Plant(tmp_path).daemon
    monkeypatch.setattr(daemon._runtime, "sweep", sweep)
    await asyncio.gather(daemon._sweep(), daemon._sweep_of(daemon._dead_of))
    await daemon.close()


async def test_a_worker_that_is_to_take_one_task_runs_one_and_no_more(tmp_path: Path) -> None:
    plant = Plant(tmp_path, slots_of={"default": 1, "gpu": 1}, once=True)
    await plant.start()
    try:
        await plant.publish("refused")
        await plant.refuse(await plant.next(Claim))  # that was none
        await plant.publish("one")
        await plant.publish("beside", queue="gpu")
        claims = [await plant.next(Claim), await plant.next(Claim)]
        for claim in claims:
            await plant.grant(claim)
        back = await plant.next(HandedBack)
        await plant.stored(back)
        (only,) = {claim.task_id for claim in claims} - {back.task_id}
        await plant.publish("later")
        await plant.next_beat(lambda beat: beat.draining)
        (await plant.runtime.prepared(only)).end(Outcome())
        end = await plant.next(RunEnded)
        assert end.task_id == only
        await plant.stored(end)
        async with asyncio.timeout(10):
            await plant.daemon.only_task_over()
            await plant.daemon.drain()
        assert await plant.ready() >= 1
        assert plant.heard(RunEnded).empty()
    finally:
        await plant.close()
