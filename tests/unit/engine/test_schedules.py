"""When schedules fire: on time, once each however many look, made up only where that was asked for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.commands import JobCommands
from coordinator.due import schedules
from coordinator.due.schedules import ScheduleTimer
from coordinator.effects import FlowDriver
from coordinator.engine import job_ends, schedule_firings
from coordinator.engine.evaluation import scope_for
from coordinator.engine.given_up import TRIES
from coordinator.store.port import Change, Store
from shared.broker.memory import MemoryBroker
from shared.errors import Conflict, NotAllowed, StoreUnavailable, Unstorable
from shared.expressions import Texts
from shared.model import language
from shared.model.documents import (
    GUEST,
    MICROS_PER_SECOND,
    Actor,
    Intent,
    JobDocument,
    ScheduleDocument,
)
from shared.model.messages import MessageCodec
from shared.model.states import JOB_ENDED
from shared.model.views import schedule_view
from shared.model.views.redacted import rfc3339
from tests.datastores import sqlite_file
from tests.settings import default_bounds
from tests.simulation.store import MemoryData, MemoryStore
from tests.unit.engine.clock import Clock, ClockedStore


class Plant:
    """Two coordinators' schedules over one store and one clock."""

    def __init__(self, store: Store, clock: Clock, broker: MemoryBroker) -> None:
        codec = MessageCodec(None)
        self.store = store
        self.clock = clock
        drivers = [FlowDriver(store, broker, default_bounds(), codec) for _ in range(2)]
        self.commands = JobCommands(drivers[0], broker, codec)
        self.ticks = 0.0
        self.schedules = [ScheduleTimer(driver, lambda: self.ticks) for driver in drivers]
        """Both are awake from their first look on."""

    async def make(self, cron: str = "", **fields: str) -> ScheduleDocument:
        """Store a schedule."""
        definition = language.JobDefinition(
            name="job",
            tasks=[language.TaskDefinition(name="task", run="true")],
            schedule=language.ScheduleDefinition(cron=cron, **fields),
        )
        return await self.commands.schedule(definition, GUEST)

    def wait(self, seconds: float) -> None:
        """Let time go on, with everybody awake."""
        self.ticks += seconds
        self.clock.advance(seconds)

    def sleep(self, seconds: float) -> None:
        """Let time go on while every coordinator is down, or its machine asleep."""
        self.clock.advance(seconds)

    async def look(self) -> None:
        """Have every coordinator look at what is due, one after another."""
        for timer in self.schedules:
            await timer.fire_due()

    async def fired(self, schedule: ScheduleDocument) -> list[JobDocument]:
        """Return the jobs that a schedule made, oldest first."""
        jobs = await self.store.find(JobDocument, {})
        made = [
            (job.schedule.time, job)
            for job in jobs
            if job.schedule and job.schedule.id == schedule.id
        ]
        return [job for _, job in sorted(made, key=lambda each: each[0])]

    async def next_at(self, schedule: ScheduleDocument) -> datetime:
        """Return when it fires next."""
        found = await self.store.get(ScheduleDocument, schedule.id)
        assert found is not None
        assert found.next_at is not None
        return datetime.fromtimestamp(found.next_at / MICROS_PER_SECOND, UTC)


@pytest.fixture
async def plant(place: Path | None) -> AsyncIterator[Plant]:
    clock = Clock()
    store = (
        ClockedStore(sqlite_file(place), clock)
        if place
        else MemoryStore(MemoryData(), clock=lambda: clock.now)
    )
    await store.start()
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    made = Plant(store, clock, broker)
    yield made
    await broker.close()
    await store.close()


async def test_each_firing_makes_one_job_however_many_look(plant: Plant) -> None:
    schedule = await plant.make("@every 10s")
    for _ in range(35):
        plant.clock.advance(1)
        await plant.look()
    assert len(await plant.fired(schedule)) == 3


async def test_a_firing_that_was_stored_but_not_moved_on_makes_no_second_job(plant: Plant) -> None:
    schedule = await plant.make("@every 10s")
    plant.clock.advance(10)
    await plant.schedules[0].fire_due()
    back = Change(kind=ScheduleDocument, id=schedule.id, set={"next_at": schedule.next_at})
    await plant.store.change(back)
    await plant.schedules[1].fire_due()
    assert len(await plant.fired(schedule)) == 1


@pytest.mark.parametrize(("catchup", "made_up"), [("", 0), ("none", 0), ("last", 1), ("all", 10)])
async def test_firings_missed_while_nobody_was_awake_are_made_up_where_asked(
    plant: Plant, catchup: str, made_up: int
) -> None:
    await plant.look()
    schedule = await plant.make("@every 2m", catchup=catchup)
    plant.sleep(20 * 60 + 2)
    await plant.look()
    assert await plant.fired(schedule) == [], "they are left to coordinators that were awake"
    plant.wait(30)
    await plant.look()
    assert await plant.fired(schedule) == []
    plant.wait(31)  # 1263 s after it was made: the next is due at 1320
    await plant.look()
    assert len(await plant.fired(schedule)) == made_up
    plant.wait(77)
    await plant.look()
    assert len(await plant.fired(schedule)) == made_up + 1


async def test_a_coordinator_that_was_awake_makes_what_others_leave(plant: Plant) -> None:
    early, late = plant.schedules
    await early.fire_due()
    schedule = await plant.make("@every 10m")
    plant.wait(10 * 60 + 90)  # the store was away, or all were busy
    await late.fire_due()
    assert await plant.fired(schedule) == []
    await early.fire_due()
    assert len(await plant.fired(schedule)) == 1


async def test_late_firings_are_all_made_the_oldest_first_up_to_a_bound(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_firings, "LATE_FIRINGS", 5)
    await plant.look()
    schedule = await plant.make("@every 2m")
    plant.wait(30 * 60 + 90)
    await plant.look()
    fired = await plant.fired(schedule)
    assert [job.schedule.time for job in fired if job.schedule] == [
        schedule.created_at + number * 120_000_000 for number in range(1, 6)
    ]
    plant.wait(30)
    await plant.look()
    assert len(await plant.fired(schedule)) == 6
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert found.late == 0


async def test_all_that_is_due_at_once_fires(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "DUE_READ", 20)
    await plant.look()
    made = [await plant.make("@every 1m") for _ in range(70)]
    plant.wait(61)
    await plant.look()
    assert len(await plant.store.find(JobDocument, {})) == len(made)


async def test_users_take_turns_however_many_schedules_one_has(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = Actor(id="b", username="bob", name="Bob")
    made = await plant.make("@every 1s")
    many = [
        msgspec.structs.replace(made, id=f"a{number}", created_by=Actor(id="a", username="ann", name="Ann"))
        for number in range(300)
    ]  # fmt: skip
    later = msgspec.structs.replace(
        made, id="bobs", created_by=bob, next_at=(made.next_at or 0) + 1
    )
    await plant.store.insert_many([*many, later])
    decided: list[str] = []
    real = plant.store.change

    async def change(change: Change[Any]) -> Any:
        if "fired_at" in change.set:
            decided.append(change.id)
        return await real(change)

    monkeypatch.setattr(plant.store, "change", change)
    plant.wait(2)
    await plant.schedules[0].fire_due()
    assert decided.index("bobs") <= 3
    assert len(set(decided)) == 302


async def test_a_look_that_is_late_still_fires(plant: Plant) -> None:
    schedule = await plant.make("@every 1m")
    plant.clock.advance(60 + 50)
    await plant.look()
    assert len(await plant.fired(schedule)) == 1


async def test_schedules_that_can_not_fire_are_put_off(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "DUE_READ", 5)
    for _ in range(20):
        poisoned = await plant.make("@every 1m")
        broken = {"cron": "of the future", "next_at": 1}
        await plant.store.change(Change(kind=ScheduleDocument, id=poisoned.id, set=broken))
    fine = await plant.make("@every 1m")
    await plant.look()
    plant.wait(61)
    await plant.look()
    assert len(await plant.fired(fine)) == 1


@pytest.mark.parametrize(
    ("day", "timezone", "time"),
    [
        ((2026, 1, 15), "Europe/Berlin", "05:30"),
        ((2026, 7, 15), "Europe/Berlin", "04:30"),
        ((2026, 1, 15), "", "06:30"),
        ((2026, 7, 15), "Asia/Kolkata", "01:00"),
    ],
)
async def test_fields_are_read_in_the_schedules_zone(
    plant: Plant, day: tuple[int, int, int], timezone: str, time: str
) -> None:
    plant.clock.now = int(datetime(*day, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND
    schedule = await plant.make("30 6 * * *", timezone=timezone)
    at = await plant.next_at(schedule)
    assert (at.date(), at.strftime("%H:%M")) == (datetime(*day).date(), time)  # noqa: DTZ001 a day only


@pytest.mark.parametrize(
    ("fields", "count"), [("30 2 * * *", 3), ("*/30 2 * * *", 5), ("30 */2 * * *", 35)]
)
async def test_when_clocks_are_set_forward_a_time_given_by_steps_is_left_out(
    plant: Plant, fields: str, count: int
) -> None:
    """At 02:00 on 29 March 2026 it is 03:00 in Berlin."""
    plant.clock.now = int(datetime(2026, 3, 28, 0, 0, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND
    schedule = await plant.make(fields, timezone="Europe/Berlin")
    for _ in range(72 * 6):
        plant.clock.advance(600)
        await plant.schedules[0].fire_due()
    assert len(await plant.fired(schedule)) == count


async def test_a_pause_ends_the_firings_and_a_resume_makes_none_up(plant: Plant) -> None:
    schedule = await plant.make("@every 1m", catchup="last")
    await plant.commands.pause_schedule(schedule)
    plant.clock.advance(600)
    await plant.look()
    assert await plant.fired(schedule) == []
    await plant.commands.resume_schedule(schedule)
    await plant.look()
    assert await plant.fired(schedule) == []
    plant.clock.advance(60)
    await plant.look()
    assert len(await plant.fired(schedule)) == 1


async def test_a_schedule_that_nobody_understands_keeps_no_other_from_firing(plant: Plant) -> None:
    poisoned, fine = await plant.make("@every 1m"), await plant.make("@every 1m")
    await plant.store.change(
        Change(kind=ScheduleDocument, id=poisoned.id, set={"cron": "of the future"})
    )
    plant.clock.advance(61)
    await plant.look()
    assert len(await plant.fired(fine)) == 1


@pytest.mark.parametrize(
    ("fields", "count"),
    [("30 2 * * *", 3), ("0 * * * *", 72), ("*/30 2 * * *", 7), ("30 */2 * * *", 37)],
)
async def test_when_clocks_are_set_back_only_a_time_given_by_steps_fires_twice(
    plant: Plant, fields: str, count: int
) -> None:
    """At 03:00 on 25 October 2026 it is 02:00 again in Berlin."""
    plant.clock.now = int(datetime(2026, 10, 24, 0, 0, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND
    schedule = await plant.make(fields, timezone="Europe/Berlin")
    for _ in range(72 * 6):
        plant.clock.advance(600)
        await plant.schedules[0].fire_due()
    assert len(await plant.fired(schedule)) == count


ANN = Actor(id="a", username="ann", name="Ann", created_at=0)


async def test_a_changed_schedule_fires_as_it_says_now(plant: Plant) -> None:
    schedule = await plant.make("@every 1h")
    definition = language.JobDefinition(
        name="other",
        tasks=[language.TaskDefinition(name="task", run="true")],
        schedule=language.ScheduleDefinition(cron="@every 1m"),
    )
    changed = await plant.commands.change_schedule(schedule, definition, ANN)
    assert (changed.id, changed.cron, changed.name) == (schedule.id, "@every 1m", "other")
    assert changed.created_by == ANN, "what it does from now on, ANN does"
    plant.wait(61)
    await plant.look()
    assert [job.name for job in await plant.fired(schedule)] == ["other"]
    await plant.commands.pause_schedule(changed)
    paused = await plant.store.get(ScheduleDocument, schedule.id)
    assert paused is not None
    assert (await plant.commands.change_schedule(paused, definition, ANN)).next_at is None
    with pytest.raises(Conflict):  # it was paused meanwhile
        await plant.commands.change_schedule(changed, definition, ANN)


async def test_a_schedule_runs_now_besides_its_firings(plant: Plant) -> None:
    schedule = await plant.make("@every 1h")
    made = {(await plant.commands.run_schedule(schedule)).id for _ in range(2)}
    assert {job.id for job in await plant.fired(schedule)} == made
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert found.next_at == schedule.next_at


async def test_one_that_fires_once_fires_at_its_time_and_never_again(plant: Plant) -> None:
    await plant.look()
    soon = await plant.make(at="90s")
    later = await plant.make(at="2099-01-01T00:00:00+01:00")
    assert soon.at == soon.created_at + 90 * MICROS_PER_SECOND
    assert await plant.next_at(later) == datetime(2098, 12, 31, 23, tzinfo=UTC)
    plant.wait(89)
    await plant.look()
    assert await plant.fired(soon) == []
    for _ in range(3):
        plant.wait(2)
        await plant.look()
    assert len(await plant.fired(soon)) == 1
    found = await plant.store.get(ScheduleDocument, soon.id)
    assert found is not None
    assert schedule_firings.next_firings(found, 3) == []
    assert await plant.fired(later) == []


async def test_a_time_that_has_passed_is_refused(plant: Plant) -> None:
    with pytest.raises(NotAllowed, match=r"schedule\.at: 2001-01-01T00:00:00Z has passed"):
        await plant.make(at="2001-01-01T00:00:00Z")


async def test_a_job_knows_which_firing_it_stands_for(plant: Plant) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s")
    for _ in range(2):
        plant.wait(61)
        await plant.look()
    first, second = await plant.fired(schedule)
    assert first.schedule is not None
    assert second.schedule is not None
    minute = 60 * MICROS_PER_SECOND
    assert (first.schedule.time, first.schedule.previous) == (schedule.created_at + minute, 0)
    assert (second.schedule.time, second.schedule.previous) == (
        schedule.created_at + 2 * minute,
        schedule.created_at + minute,
    )
    scope = scope_for(second, {}, Texts({}))["schedule"]
    assert scope == {
        "time": rfc3339(second.schedule.time),
        "previous": rfc3339(second.schedule.previous),
    }
    assert scope_for(first, {}, Texts({}))["schedule"] == {"time": rfc3339(first.schedule.time)}
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert schedule_view(found).last_job_id == second.id
    assert schedule_view(found).last_at == rfc3339(second.schedule.time)
    assert [at - schedule.created_at for at in schedule_firings.next_firings(found, 3)] == [
        3 * minute,
        4 * minute,
        5 * minute,
    ]


async def _end(plant: Plant, job: JobDocument) -> None:
    await plant.commands.cancel(job)


async def _states(plant: Plant, schedule: ScheduleDocument) -> list[str]:
    return ["ended" if job.state in JOB_ENDED else "open" for job in await plant.fired(schedule)]


@pytest.mark.parametrize(
    ("overlap", "states"),
    [
        ("", ["open", "open", "open"]),
        ("allow", ["open", "open", "open"]),
        ("skip", ["open"]),
        ("queue", ["open"]),
        ("cancel", ["ended", "ended", "open"]),
    ],
)
async def test_what_becomes_of_a_firing_while_the_job_before_still_runs(
    plant: Plant, overlap: str, states: list[str]
) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s", overlap=overlap)
    for _ in range(3):
        plant.wait(61)
        await plant.look()
    assert await _states(plant, schedule) == states


async def test_queued_firings_are_made_in_order_each_when_the_job_before_has_ended(
    plant: Plant,
) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s", overlap="queue")
    for _ in range(3):
        plant.wait(61)
        await plant.look()
    (first,) = await plant.fired(schedule)
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert schedule_view(found).last_job_id == first.id, "the last that is there"
    plant.sleep(30)  # nor do they get lost while nobody is awake
    await plant.look()
    assert await plant.fired(schedule) == [first]
    await _end(plant, first)
    plant.wait(6)
    await plant.look()
    second = (await plant.fired(schedule))[1]
    assert await _states(plant, schedule) == ["ended", "open"]
    assert second.schedule is not None
    assert second.schedule.time == schedule.created_at + 120 * MICROS_PER_SECOND
    await _end(plant, second)
    plant.wait(6)
    await plant.look()
    assert await _states(plant, schedule) == ["ended", "ended", "open"]


async def test_no_queued_firing_is_given_up_however_long_the_one_before_it_waits(
    plant: Plant,
) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s", overlap="queue")
    for _ in range(4):
        plant.wait(61)
        await plant.look()
    for _ in range(10):  # each look takes all up that wait, and tries only the first
        plant.wait(6)
        await plant.look()
    for made in range(1, 4):
        await _end(plant, (await plant.fired(schedule))[-1])
        plant.wait(6)
        await plant.look()
        assert len(await plant.fired(schedule)) >= made + 1
    times = [job.schedule.time for job in await plant.fired(schedule) if job.schedule]
    every = 60 * MICROS_PER_SECOND
    assert times[:4] == [schedule.created_at + every * number for number in range(1, 5)]


async def test_a_store_that_refuses_costs_a_firing_no_try(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s")
    plant.wait(61)

    async def refused(_: object) -> bool:
        raise StoreUnavailable("no room left")

    with monkeypatch.context() as patch:
        patch.setattr(plant.store, "insert", refused)
        for _ in range(10):
            with contextlib.suppress(StoreUnavailable):
                await plant.look()
            plant.wait(6)
    await plant.look()
    first = (await plant.fired(schedule))[0].schedule
    assert first is not None
    assert first.time == schedule.created_at + 60 * MICROS_PER_SECOND


async def test_a_firing_that_fails_at_every_try_is_given_up_and_its_schedule_says_why(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant.look()
    schedule = await plant.make("@every 1h")
    plant.wait(3601)
    tried: list[str] = []

    async def refused(made: JobDocument) -> bool:
        tried.append(made.id)
        raise Unstorable("job j is larger than 16711680 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(plant.store, "insert", refused)
        for _ in range(20):
            await plant.look()
            plant.wait(100)
        found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert found.then == []
    assert len(tried) == TRIES + 1
    said = f"no job was made of the firing at {rfc3339(schedule.next_at)}, tried {TRIES} times: job j is larger"
    assert schedule_view(found).error.startswith(said)
    assert (found.fired_at, found.last_job_id) == (None, None)
    plant.wait(3600 - 20 * 100)
    await plant.look()
    (made,) = await plant.fired(schedule)
    assert made.schedule is not None
    assert made.schedule.previous == 0
    again = await plant.store.get(ScheduleDocument, schedule.id)
    assert again is not None
    assert (again.error, again.last_job_id) == (None, made.id)


async def test_a_firing_that_is_skipped_is_skipped_for_all(plant: Plant) -> None:
    """The decision is one write: a coordinator that read before, and finds the job ended, can't decide otherwise."""
    await plant.look()
    schedule = await plant.make("@every 60s", overlap="skip")
    plant.wait(61)
    await plant.look()
    (first,) = await plant.fired(schedule)
    old = await plant.store.get(ScheduleDocument, schedule.id)
    plant.wait(60)
    await plant.schedules[0].fire_due()
    await _end(plant, first)
    assert old is not None
    judge = schedule_firings.Judge(plant.store.now(), 0)
    late = schedule_firings.decided(old, judge.firing(old), judge.now, busy=False)
    assert await plant.store.change(late) is None
    assert len(await plant.fired(schedule)) == 1
    plant.wait(60)
    await plant.look()
    assert len(await plant.fired(schedule)) == 2, "the next one finds that it has ended"


async def test_a_firing_whose_coordinator_died_is_made_by_another(plant: Plant) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s")
    plant.wait(61)
    judge = schedule_firings.Judge(plant.store.now(), 0)
    decision = schedule_firings.decided(schedule, judge.firing(schedule), judge.now, busy=False)
    assert await plant.store.change(decision) is not None  # and here it dies
    await plant.look()
    assert await plant.fired(schedule) == [], "it is left to whoever took it for a while"
    plant.wait(6)
    await plant.look()
    (job,) = await plant.fired(schedule)
    assert job.schedule is not None
    assert job.schedule.time == schedule.created_at + 60 * MICROS_PER_SECOND


async def test_a_firing_whose_job_came_and_went_makes_none_again(plant: Plant) -> None:
    """Whoever made it died before it could say so."""
    await plant.look()
    schedule = await plant.make("@every 60s")
    plant.wait(61)
    judge = schedule_firings.Judge(plant.store.now(), 0)
    decision = schedule_firings.decided(schedule, judge.firing(schedule), judge.now, busy=False)
    decided = await plant.store.change(decision)
    assert decided is not None
    made = schedule_firings.fired_job(decided, decided.then[0], plant.store.now(), ())
    await plant.store.insert(msgspec.structs.replace(made, state="COMPLETED", then=[]))
    driver = plant.schedules[0]._driver
    await driver.follow(await driver.carry_out(job_ends.marked_for_removal(made.id)))
    plant.wait(6)
    await plant.look()
    assert await plant.fired(schedule) == []


async def _paused_while_firings_wait(
    plant: Plant, waiting: int
) -> tuple[ScheduleDocument, JobDocument]:
    """Return a schedule that was paused while so many of its firings waited, and the job of the one before them, which
    has ended since."""
    await plant.look()
    schedule = await plant.make("@every 60s", overlap="queue")
    for _ in range(1 + waiting):
        plant.wait(61)
        await plant.look()
    (first,) = await plant.fired(schedule)
    await plant.commands.pause_schedule(schedule)
    await _end(plant, first)
    plant.wait(10)
    await plant.look()
    return schedule, first


async def test_a_paused_schedule_makes_no_job_that_waits(plant: Plant) -> None:
    schedule, first = await _paused_while_firings_wait(plant, 1)
    assert len(await plant.fired(schedule)) == 1
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert found.then == []
    assert (found.fired_at, found.last_job_id) == (_time(first), first.id)


async def test_what_a_pause_left_out_is_no_previous_firing(plant: Plant) -> None:
    """A report from the firing before to this one has no gap."""
    schedule, first = await _paused_while_firings_wait(plant, 2)
    await plant.commands.resume_schedule(schedule)
    plant.wait(61)
    await plant.look()
    _, next_one = await plant.fired(schedule)
    assert next_one.schedule is not None
    assert next_one.schedule.previous == _time(first)


async def test_a_firing_whose_job_was_made_before_a_pause_counts_though_nobody_said_so(
    plant: Plant,
) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s")
    plant.wait(61)
    await plant.look()
    (first,) = await plant.fired(schedule)
    fired = await plant.store.get(ScheduleDocument, schedule.id)
    assert fired is not None
    args = {"job": first.id, "time": _time(first), "previous": 0, "after": ""}
    left = Intent(f"fire {_time(first)}", "fire", plant.store.now(), args)
    await plant.store.change(Change(kind=ScheduleDocument, id=schedule.id, add_then=(left,)))
    await plant.commands.pause_schedule(fired)
    plant.wait(10)
    await plant.look()
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert (found.then, found.fired_at, found.last_job_id) == ([], _time(first), first.id)


async def test_a_job_made_by_hand_stays_the_last_one_where_a_pause_leaves_firings_out(
    plant: Plant,
) -> None:
    await plant.look()
    schedule = await plant.make("@every 60s", overlap="queue")
    for _ in range(2):
        plant.wait(61)
        await plant.look()
    by_hand = await plant.commands.run_schedule(schedule)
    plant.wait(61)
    await plant.look()
    await plant.commands.pause_schedule(schedule)
    plant.wait(10)
    await plant.look()
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert (found.then, found.last_job_id) == ([], by_hand.id)


def _time(job: JobDocument) -> int:
    assert job.schedule is not None
    return job.schedule.time
