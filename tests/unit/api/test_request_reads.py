"""Slow requests keep nobody waiting but other requests: the engine reads beside them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator import turns
from coordinator.api.context import Caller, caller_id, set_caller
from coordinator.store.sqlite import reads, threads
from coordinator.turns import READS_OF_REQUESTS
from shared.model.documents import Actor, JobDocument, UserDocument
from tests.unit.api.served import Served


class Held:
    """Searches for jobs that take as long as the test wants."""

    def __init__(self) -> None:
        self.under_way = 0
        self.let_go = threading.Event()
        self._real = reads.found_jobs

    def search(self, *args: Any) -> Any:
        """Wait, then search."""
        self.under_way += 1
        self.let_go.wait(30)
        return self._real(*args)

    async def all_began(self) -> None:
        """Wait until as many are under way as may be, and see that no more begin."""
        async with asyncio.timeout(10):
            while self.under_way < READS_OF_REQUESTS:  # noqa: ASYNC110  (a thread tells nobody)
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert self.under_way == READS_OF_REQUESTS


@pytest.fixture
async def held(api: Served, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    """More requests search than may read at once, and none of them gets on."""
    await api.submit()
    held = Held()
    monkeypatch.setattr(reads, "found_jobs", held.search)
    asked = [asyncio.ensure_future(api.get("/jobs")) for _ in range(READS_OF_REQUESTS * 3)]
    try:
        await held.all_began()
        yield held
    finally:
        held.let_go.set()
        answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} == {200}


@pytest.mark.usefixtures("held")
async def test_the_engine_reads_beside_slow_requests(api: Served) -> None:
    async with asyncio.timeout(2):
        assert await api.store.get(JobDocument, "none") is None


@pytest.mark.usefixtures("held")
async def test_the_health_of_the_datastore_is_told_beside_slow_requests(api: Served) -> None:
    assert (await api.get("/health")).status == 200


@pytest.mark.usefixtures("held")
async def test_who_asks_and_one_job_are_found_beside_slow_requests(api: Served) -> None:
    shared = turns.of_requests(api.store, caller_id)
    async with asyncio.timeout(2):
        assert await shared.find(UserDocument, {"username": "nobody"}, limit=1) == []
        assert (await api.get("/jobs/0123456789abcdef0123456789abcdef")).status == 404


def test_requests_leave_the_engine_readers_of_sqlite() -> None:
    assert threads.READERS >= READS_OF_REQUESTS + 2


async def test_one_users_many_reads_delay_others_by_one_round(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def find(_: object, where: dict[str, str]) -> list[JobDocument]:
        order.append(where["name"])
        await asyncio.sleep(0.01)
        return []

    async def read(user: str) -> None:
        set_caller(Caller(Actor(id=user, username=user)))
        await shared.find(JobDocument, {"name": user})

    monkeypatch.setattr(api.store, "find", find)
    shared = turns.of_requests(api.store, caller_id)
    users = ["many"] * READS_OF_REQUESTS * 5 + ["one"]
    await asyncio.gather(*(asyncio.create_task(read(user)) for user in users))
    assert order.index("one") <= READS_OF_REQUESTS + 1


@pytest.mark.usefixtures("held")
async def test_a_request_that_may_not_read_in_time_is_told_so(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_WITHIN", 0.1)
    answer = await api.get("/jobs")
    assert answer.status == 503
    assert answer.message == "the datastore does not answer: too many other requests are reading"


async def test_a_read_that_nobody_waits_for_any_more_counts_until_it_is_over(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, begun = asyncio.Event(), 0

    async def find(*_: Any) -> list[JobDocument]:
        nonlocal begun
        begun += 1
        await end.wait()
        return []

    monkeypatch.setattr(api.store, "find", find)
    shared = turns.of_requests(api.store, caller_id)
    asked = [
        asyncio.ensure_future(shared.find(JobDocument, {})) for _ in range(READS_OF_REQUESTS * 2)
    ]
    await asyncio.sleep(0)
    for each in asked[:READS_OF_REQUESTS]:
        each.cancel()
    await asyncio.wait(asked[:READS_OF_REQUESTS])
    assert begun == READS_OF_REQUESTS
    end.set()
    assert await asyncio.gather(*asked[READS_OF_REQUESTS:]) == [[]] * READS_OF_REQUESTS
