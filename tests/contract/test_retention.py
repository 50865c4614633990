"""What is deleted for its age, and what is not: whole, and never what still goes on."""

from __future__ import annotations

import pytest

from coordinator.commands import JobCommands
from coordinator.due import retention
from coordinator.due.retention import RetentionTimer
from coordinator.effects import FlowDriver
from coordinator.engine import pulse, removal
from coordinator.engine.job_ends import marked_for_removal
from coordinator.store.port import Store
from shared.broker.memory import MemoryBroker
from shared.errors import NotFound
from shared.model import language
from shared.model.documents import (
    GUEST,
    MICROS_PER_SECOND,
    AuditDocument,
    DeliveryDocument,
    Intent,
    JobDocument,
    LogPartDocument,
    Pulse,
    TaskDocument,
    TombstoneDocument,
)
from shared.model.messages import MessageCodec
from shared.model.queries import Change
from tests.contract.documents import delivery, job, log_part, task
from tests.settings import default_bounds

SETTLED_ERA = 1


async def retention_of(
    store: Store, *, era_at: int = SETTLED_ERA, audit: float = 0.0
) -> RetentionTimer:
    """Return what deletes jobs after 100 s, logs after 50 s, and entries of the audit log as it is told."""
    await store.insert(Pulse(id=pulse.PULSE_ID, moved_at=store.now(), era_at=era_at))
    broker = MemoryBroker(node_expiry=60.0)
    driver = FlowDriver(store, broker, default_bounds(), MessageCodec())
    return RetentionTimer(driver, 100.0, 50.0, audit)


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


@pytest.mark.parametrize(("audit", "left"), [(300.0, [2, 3]), (0.0, [1, 2, 3])])
async def test_entries_of_the_audit_log_go_when_they_are_old(
    store: Store, audit: float, left: list[int]
) -> None:
    timer = await retention_of(store, audit=audit)
    entries = [
        AuditDocument(id=f"e{n}", at=1, action="job.create", chain="c", number=n, sealed_at=sealed)
        for n, sealed in enumerate((ago(store, 310), ago(store, 290), ago(store, 0)), start=1)
    ]
    await store.insert_many(entries)
    await look(timer)
    found = await store.find(AuditDocument, {}, ("number",))
    assert [entry.number for entry in found] == left


async def test_nothing_goes_for_its_age_soon_after_a_clock_jumped(store: Store) -> None:
    timer = await retention_of(store, era_at=ago(store, 300), audit=1.0)
    await store.insert_many(
        [
            job("old", state="COMPLETED", ended_at=ago(store, 200)),
            job("auto", state="COMPLETED", ended_at=ago(store, 200), delete_at=ago(store, 1)),
        ]
    )
    await store.append_log([log_part("t", 1, job_id="old", created_at=ago(store, 200))])
    await store.insert(AuditDocument(id="e", at=1, action="x", chain="c", number=1, sealed_at=1))
    await look(timer)
    assert await ids(store) == ["old"], "autoDelete is no matter of age"
    assert await store.count(LogPartDocument, {}) == await store.count(AuditDocument, {}) == 1


async def test_nothing_goes_for_its_age_while_the_pulse_stands_still(store: Store) -> None:
    """A coordinator that begins right after a clock jumped looks before the first probe is taken."""
    timer = await retention_of(store)
    await store.insert(job("old", state="COMPLETED", ended_at=ago(store, 200)))
    stood = Change(kind=Pulse, id=pulse.PULSE_ID, set={"moved_at": ago(store, 7_200)})
    await store.change_many([stood])
    await look(timer)
    assert await ids(store) == ["old"]


async def removed(store: Store, timer: RetentionTimer, job_id: str) -> None:
    await timer._driver.handle(marked_for_removal(job_id))
    await timer._driver._following.finish()


async def follow_again(store: Store, timer: RetentionTimer, job_id: str) -> JobDocument | None:
    """Do what due work does when the time of a removal has come again."""
    found = await store.get(JobDocument, job_id)
    if found is not None:
        await timer._driver.follow([found])
    return await store.get(JobDocument, job_id)


async def test_what_is_left_of_a_deleted_job_is_its_id_for_a_day(store: Store) -> None:
    timer = await retention_of(store)
    made = job("j", state="COMPLETED", ended_at=1, body_hash="x", tags=["secret"])
    await store.insert_many([made, job("random", state="COMPLETED", ended_at=1)])
    for name in ("j", "random"):
        await removed(store, timer, name)
    assert await ids(store) == []
    page = await store.search_jobs(
        terms=(), tags_any=(), state=None, viewer=None, skip=0, limit=10, cap=10
    )
    assert (page.items, page.total) == ([], 0)
    (left,) = await store.find(TombstoneDocument, {})
    assert left == TombstoneDocument(id="j", buried_at=left.buried_at), "no other comes again"
    assert not await timer._driver.insert_job(made)
    assert await ids(store) == []
    for age, there in ((-60, 1), (60, 0)):
        buried_at = ago(store, 24 * 3600 + age)
        seen = Change(kind=TombstoneDocument, id="j", set={"buried_at": buried_at})
        assert await store.change(seen)
        await timer._delete_old(store.now())
        assert await store.count(TombstoneDocument, {}) == there
    assert await timer._driver.insert_job(made)


async def test_a_submission_whose_answer_was_lost_makes_no_second_job(store: Store) -> None:
    timer = await retention_of(store)
    commands = JobCommands(timer._driver, MemoryBroker(node_expiry=60.0), MessageCodec())
    asked = language.JobDefinition(name="once", auto_delete=language.AutoDelete(after="0s"))
    first = await commands.submit(asked, GUEST, key="k", body_hash="x")
    ended = {"state": "COMPLETED", "ended_at": 1}
    await store.change(Change(kind=JobDocument, id=first.id, set=ended, drop_then=("begin",)))
    await removed(store, timer, first.id)
    with pytest.raises(NotFound, match="has been deleted"):
        await commands.submit(asked, GUEST, key="k", body_hash="x")
    assert await ids(store) == []


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


async def test_a_clock_that_jumps_takes_no_webhook_its_time(store: Store) -> None:
    timer = await retention_of(store, era_at=ago(store, 60))
    await store.insert(job("j", state="COMPLETED", ended_at=1))
    await store.insert(delivery("d", job_id="j", state="PENDING"))
    await removed(store, timer, "j")
    before_the_jump = store.now() - removal.TOLD_WITHIN
    await store.change(Change(kind=JobDocument, id="j", set={"deleted_at": before_the_jump}))
    assert await follow_again(store, timer, "j") is not None
    assert await store.count(DeliveryDocument, {}) == 1
