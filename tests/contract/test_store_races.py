"""What every datastore promises to many who ask at once."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.store.port import SlotTaken, Store
from shared.model.documents import JobDocument, Pulse, TaskDocument
from shared.model.queries import Above, Change
from tests.contract.conftest import StorePlace
from tests.contract.documents import intent, job, task
from tests.services.fixtures import Database

MANY = 50


@pytest.fixture
def store_database(mongodb_database: Database) -> Database:
    """A database for one test alone: what was given up may yet be written, after the test."""
    return mongodb_database


async def test_one_of_many_wins_a_document(store: Store) -> None:
    await store.insert(job("j"))
    answers = await asyncio.gather(
        *(
            store.change(
                Change(
                    kind=JobDocument,
                    id="j",
                    where={"state": "PENDING"},
                    set={"state": "RUNNING", "error": str(number)},
                    add_then=(intent(str(number)),),
                )
            )
            for number in range(MANY)
        )
    )
    (won,) = [answer for answer in answers if answer is not None]
    found = await store.get(JobDocument, "j")
    assert found == won
    assert [each.id for each in won.then] == [won.error]


async def test_a_counter_loses_nothing(store: Store) -> None:
    await store.insert(Pulse(id="p"))

    async def add_one() -> None:
        while True:
            pulse = await store.get(Pulse, "p")
            assert pulse is not None
            step = Change(kind=Pulse, id="p", where={"rev": pulse.rev}, set={"rev": pulse.rev + 1})
            if await store.change(step) is not None:
                return

    await asyncio.gather(*(add_one() for _ in range(10)))
    assert await store.get(Pulse, "p") == Pulse(id="p", rev=10)


async def test_intents_added_at_once_are_all_kept(store: Store) -> None:
    await store.insert(job("j"))
    names = [str(number) for number in range(MANY)]
    await asyncio.gather(
        *(
            store.change(Change(kind=JobDocument, id="j", add_then=(intent(name),)))
            for name in names * 2
        )
    )
    found = await store.get(JobDocument, "j")
    assert found is not None
    assert sorted(each.id for each in found.then) == sorted(names)


async def test_the_first_is_given_once(store: Store) -> None:
    await store.insert_many([task(f"{n:02}", hold="concurrency", index=n) for n in range(MANY)])
    taken = await asyncio.gather(
        *(
            store.change_first(TaskDocument, {"hold": "concurrency"}, ("index",), {"hold": None})
            for _ in range(MANY + 10)
        )
    )
    ids = sorted(each.id for each in taken if each is not None)
    assert len(ids) == len(set(ids))
    while left := await store.change_first(
        TaskDocument, {"hold": "concurrency"}, ("index",), {"hold": None}
    ):
        ids.append(left.id)
    assert sorted(ids) == [f"{n:02}" for n in range(MANY)]


async def test_one_of_many_gets_a_slot(store: Store) -> None:
    async def insert(number: int) -> bool:
        try:
            return await store.insert(task(str(number), slot_of="e", slot=1))
        except SlotTaken:
            return False

    assert sum(await asyncio.gather(*(insert(number) for number in range(MANY)))) == 1
    assert await store.count(TaskDocument, {}) == 1


async def test_one_of_many_inserts(store: Store) -> None:
    made = await asyncio.gather(
        *(store.insert(job("j", error=str(number))) for number in range(MANY))
    )
    found = await store.get(JobDocument, "j")
    assert found is not None
    assert made.count(True) == 1
    assert found.error == str(made.index(True))


async def test_what_was_written_is_read(store: Store) -> None:
    async def write_and_read(id: str) -> None:
        await store.insert(task(id))
        for number in range(5):
            await store.change(Change(kind=TaskDocument, id=id, set={"run": number}))
            found = await store.get(TaskDocument, id)
            assert found is not None
            assert found.run == number
            assert await store.count(TaskDocument, {"id": id, "run": Above(number - 1)}) == 1

    await asyncio.gather(*(write_and_read(str(number)) for number in range(20)))


async def test_who_gives_up_waiting_harms_nobody(store: Store) -> None:
    waiting = [asyncio.create_task(store.insert(job(str(n)))) for n in range(MANY)]
    await asyncio.sleep(0)
    for given_up in waiting[::2]:
        given_up.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(result is True for result in results[1::2])
    assert len(await store.get_many(JobDocument, [str(n) for n in range(1, MANY, 2)])) == MANY // 2


async def test_what_was_asked_for_is_done_when_it_closes(store_place: StorePlace) -> None:
    store = await store_place.open()
    await store.insert(job("before"))
    await store.close()
    await store.close()
    again = await store_place.open()
    assert await again.get(JobDocument, "before") == job("before")


async def test_what_is_under_way_when_it_closes_is_finished(store_place: StorePlace) -> None:
    store = await store_place.open()
    under_way = [asyncio.create_task(store.insert(job(str(n)))) for n in range(MANY)]
    await asyncio.sleep(0)
    await store.close()
    assert all(await asyncio.gather(*under_way))
    again = await store_place.open()
    assert await again.count(JobDocument, {}) == MANY
