"""What is deleted for its age, and what is not: whole, and never what still goes on."""

from __future__ import annotations

import pytest

from coordinator.due import retention
from coordinator.due.retention import RetentionTimer
from coordinator.effects import FlowDriver
from coordinator.engine import pulse, removal
from coordinator.engine.job_ends import marked_for_removal
from coordinator.store.port import Store
from shared.broker.memory import MemoryBroker
from shared.model.documents import (
    MICROS_PER_SECOND,
    DeliveryDocument,
    Intent,
    JobDocument,
    LogPartDocument,
    Pulse,
    TaskDocument,
)
from shared.model.messages import MessageCodec
from shared.model.queries import Change
from tests.contract.documents import delivery, job, log_part, task
from tests.settings import default_bounds

SETTLED_ERA = 1


async def retention_of(store: Store, *, era_at: int = SETTLED_ERA) -> RetentionTimer:
    """Return what deletes jobs after 100 s, and logs after 50 s."""
    await store.insert(Pulse(id=pulse.PULSE_ID, moved_at=store.now(), era_at=era_at))
    broker = MemoryBroker(node_expiry=60.0)
    driver = FlowDriver(store, broker, default_bounds(), MessageCodec())
    return RetentionTimer(driver, 100.0, 50.0)


def ago(store: Store, seconds: float) -> int:
    return store.now() - int(seconds * MICROS_PER_SECOND)


async def look(timer: RetentionTimer) -> None:
    await timer.look()
    await timer._driver._following.finish()


async def ids(store: Store) -> list[str]:
    return [each.id for each in await store.find(JobDocument, {}, ("id",))]


async def test_all_that_is_old_goes_in_one_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind any number of jobs that can't go yet."""
    monkeypatch.setattr(retention, "JOBS_READ", 10)
    timer = await retention_of(store)
    ended = {"state": "COMPLETED", "ended_at": ago(store, 200)}
    busy = [Intent(id="finish", do="finish", at=store.now())]
    await store.insert_many(
        [job(f"busy{number}", **{**ended, "ended_at": 1}, then=busy) for number in range(25)]
        + [job(f"old{number}", **ended) for number in range(45)]
        + [job("young", state="COMPLETED", ended_at=ago(store, 90)), job("running")]
    )
    await look(timer)
    assert await ids(store) == [*sorted(f"busy{number}" for number in range(25)), "running", "young"]  # fmt: skip


async def test_the_log_of_a_job_that_goes_on_is_kept_however_old(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOG_PARTS_READ", 10)
    timer = await retention_of(store)
    await store.insert_many([job("running"), job("done", state="FAILED", ended_at=ago(store, 60))])
    old, young = ago(store, 70), ago(store, 10)
    running = [log_part("r", n, job_id="running", created_at=old + n) for n in range(1, 36)]
    done = [log_part("d", n, job_id="done", created_at=old + 100 + n) for n in range(1, 36)]
    late = [log_part("d", n, job_id="done", created_at=young) for n in (36, 37)]
    gone = [log_part("g", n, job_id="gone", created_at=old) for n in (1, 2)]
    await store.append_log([*running, *done, *late, *gone])
    await look(timer)
    left = await store.find(LogPartDocument, {}, ("task_id", "number"))
    assert {(part.task_id, part.number) for part in left} == {
        *(("r", number) for number in range(1, 36)),
        ("d", 36),
        ("d", 37),
    }


async def test_nothing_goes_for_its_age_soon_after_a_clock_jumped(store: Store) -> None:
    timer = await retention_of(store, era_at=ago(store, 300))
    await store.insert_many(
        [
            job("old", state="COMPLETED", ended_at=ago(store, 200)),
            job("auto", state="COMPLETED", ended_at=ago(store, 200), delete_at=ago(store, 1)),
        ]
    )
    await store.append_log([log_part("t", 1, job_id="old", created_at=ago(store, 200))])
    await look(timer)
    assert await ids(store) == ["old"], "autoDelete is no matter of age"
    assert await store.count(LogPartDocument, {}) == 1


async def removed(store: Store, timer: RetentionTimer, job_id: str) -> None:
    await timer._driver.handle(marked_for_removal(job_id))
    await timer._driver._following.finish()


async def follow_again(store: Store, timer: RetentionTimer, job_id: str) -> JobDocument | None:
    """Do what due work does when the time of a removal has come again."""
    found = await store.get(JobDocument, job_id)
    if found is not None:
        await timer._driver.follow([found])
    return await store.get(JobDocument, job_id)


async def test_a_removed_jobs_webhooks_are_delivered_first(store: Store) -> None:
    timer = await retention_of(store)
    await store.insert(job("j", state="COMPLETED", ended_at=1))
    await store.insert(task("t", job_id="j", state="COMPLETED", active=False, open=False))
    await store.insert(delivery("d", job_id="j", state="PENDING"))
    await removed(store, timer, "j")
    kept = await follow_again(store, timer, "j")
    assert kept is not None
    assert (kept.deleted_at or 0) > 0
    assert min(each.at for each in kept.then) > store.now(), "it is due again, not at once"
    assert await store.count(TaskDocument, {}) == 1
    await store.change(Change(kind=DeliveryDocument, id="d", set={"state": "DELIVERED"}))
    assert await follow_again(store, timer, "j") is None
    assert await store.count(DeliveryDocument, {}) == await store.count(TaskDocument, {}) == 0


async def test_a_removal_waits_for_webhooks_of_tasks_that_are_not_made_yet(store: Store) -> None:
    timer = await retention_of(store)
    told = {"event": "task.StateChange", "state": "COMPLETED"}
    hook = Intent(id="hook", do="hook", at=store.now(), args=told)
    await store.insert(job("j", state="COMPLETED", ended_at=1))
    await store.insert(
        task("t", job_id="j", state="COMPLETED", active=False, open=False, then=[hook])
    )
    await removed(store, timer, "j")
    assert await store.get(TaskDocument, "t") is not None
    await store.change(Change(kind=TaskDocument, id="t", drop_then=("hook",)))
    assert await follow_again(store, timer, "j") is None


async def test_a_webhook_that_never_arrives_holds_a_removal_up_for_a_while_only(
    store: Store,
) -> None:
    timer = await retention_of(store)
    await store.insert(job("j", state="COMPLETED", ended_at=1))
    await store.insert(delivery("d", job_id="j", state="PENDING"))
    await removed(store, timer, "j")
    long_ago = store.now() - removal.TOLD_WITHIN
    await store.change(Change(kind=JobDocument, id="j", set={"deleted_at": long_ago}))
    assert await follow_again(store, timer, "j") is None
    assert await store.count(DeliveryDocument, {}) == 0
