"""When schedules fire: on time, once each however many look, made up only where that was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.commands import JobCommands
from coordinator.due import schedules
from coordinator.due.schedules import ScheduleTimer
from coordinator.effects import FlowDriver
from coordinator.engine import schedule_firings
from coordinator.store.port import Change
from shared.broker.memory import MemoryBroker
from shared.errors import Conflict
from shared.model import language
from shared.model.documents import GUEST, MICROS_PER_SECOND, JobDocument, ScheduleDocument
from shared.model.messages import MessageCodec
from tests.settings import default_bounds
from tests.unit.engine.clock import Clock, ClockedStore


class Plant:
    """Two coordinators' schedules over one store and one clock."""

    def __init__(self, store: ClockedStore, broker: MemoryBroker) -> None:
        codec = MessageCodec(None)
        self.store = store
        self.clock = store.test_clock
        drivers = [FlowDriver(store, broker, default_bounds(), codec) for _ in range(2)]
        self.commands = JobCommands(drivers[0], broker, codec)
        self.ticks = 0.0
        self.schedules = [ScheduleTimer(driver, lambda: self.ticks) for driver in drivers]
        """Both are awake from their first look on."""

    async def make(self, cron: str, **fields: str) -> ScheduleDocument:
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
        jobs = await self.store.find(JobDocument, {}, order=("created_at",))
        return [job for job in jobs if job.schedule and job.schedule.id == schedule.id]

    async def next_at(self, schedule: ScheduleDocument) -> datetime:
        """Return when it fires next."""
        found = await self.store.get(ScheduleDocument, schedule.id)
        assert found is not None
        assert found.next_at is not None
        return datetime.fromtimestamp(found.next_at / MICROS_PER_SECOND, UTC)


@pytest.fixture
async def plant(folder: Path) -> AsyncIterator[Plant]:
    store = ClockedStore(folder / "haulier.db", Clock())
    await store.start()
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    made = Plant(store, broker)
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
    assert {job.id for job in fired} == {
        schedule_firings.fired_job(schedule, schedule.created_at + number * 120_000_000, 0).id
        for number in range(1, 6)
    }
    plant.wait(30)
    await plant.look()
    assert len(await plant.fired(schedule)) == 6
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert found.late == 0


async def test_all_that_is_due_at_once_fires(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "DUE_AT_ONCE", 20)
    await plant.look()
    made = [await plant.make("@every 1m") for _ in range(70)]
    plant.wait(61)
    await plant.look()
    assert len(await plant.store.find(JobDocument, {})) == len(made)


async def test_a_look_that_is_late_still_fires(plant: Plant) -> None:
    schedule = await plant.make("@every 1m")
    plant.clock.advance(60 + 50)
    await plant.look()
    assert len(await plant.fired(schedule)) == 1


async def test_schedules_that_can_not_fire_are_put_off(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "DUE_AT_ONCE", 5)
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


async def test_across_a_change_of_daylight_saving_it_fires_once_a_day(plant: Plant) -> None:
    plant.clock.now = int(datetime(2026, 3, 28, 0, 0, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND
    schedule = await plant.make("30 2 * * *", timezone="Europe/Berlin")
    for _ in range(72 * 60):
        plant.clock.advance(60)
        await plant.schedules[0].fire_due()
    assert len(await plant.fired(schedule)) == 3


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


@pytest.mark.parametrize(("fields", "count"), [("30 2 * * *", 3), ("0 * * * *", 72)])
async def test_when_clocks_are_set_back_nothing_fires_twice(
    plant: Plant, fields: str, count: int
) -> None:
    """At 03:00 on 25 October 2026 it is 02:00 again in Berlin."""
    plant.clock.now = int(datetime(2026, 10, 24, 0, 0, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND
    schedule = await plant.make(fields, timezone="Europe/Berlin")
    for _ in range(72 * 6):
        plant.clock.advance(600)
        await plant.schedules[0].fire_due()
    assert len(await plant.fired(schedule)) == count


async def test_a_changed_schedule_fires_as_it_says_now(plant: Plant) -> None:
    schedule = await plant.make("@every 1h")
    definition = language.JobDefinition(
        name="other",
        tasks=[language.TaskDefinition(name="task", run="true")],
        schedule=language.ScheduleDefinition(cron="@every 1m"),
    )
    changed = await plant.commands.change_schedule(schedule, definition)
    assert (changed.id, changed.cron, changed.name) == (schedule.id, "@every 1m", "other")
    plant.wait(61)
    await plant.look()
    assert [job.name for job in await plant.fired(schedule)] == ["other"]
    await plant.commands.pause_schedule(changed)
    paused = await plant.store.get(ScheduleDocument, schedule.id)
    assert paused is not None
    assert (await plant.commands.change_schedule(paused, definition)).next_at is None
    with pytest.raises(Conflict):  # it was paused meanwhile
        await plant.commands.change_schedule(changed, definition)


async def test_a_schedule_runs_now_besides_its_firings(plant: Plant) -> None:
    schedule = await plant.make("@every 1h")
    made = {(await plant.commands.run_schedule(schedule)).id for _ in range(2)}
    assert {job.id for job in await plant.fired(schedule)} == made
    found = await plant.store.get(ScheduleDocument, schedule.id)
    assert found is not None
    assert found.next_at == schedule.next_at
