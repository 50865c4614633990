"""Receivers of webhooks do not wait for one another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from coordinator.due.webhook_places import (
    DELIVERIES_AT_ONCE,
    LIMIT_AFTER_A_TIMEOUT,
    LIMIT_OF_A_HOST,
    LIMIT_OF_A_USER,
    Place,
    Places,
)
from coordinator.due.webhooks import LOOKED_AT, WebhookSender
from coordinator.store.sqlite import SqliteStore
from shared.model.documents import DeliveryDocument

MANY = LOOKED_AT * 2


class Receivers:
    """One that hangs, and one that answers."""

    def __init__(self) -> None:
        self.hanging = 0
        self.answered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.all_came = asyncio.Event()

    async def serve(self, stack: AsyncExitStack) -> tuple[str, str]:
        """Return the addresses of the two."""
        return await self._listen(stack, self._hang), await self._listen(stack, self._answer)

    async def _listen(self, stack: AsyncExitStack, handler: object) -> str:
        app = web.Application()
        app.add_routes([web.post("/", handler)])  # type: ignore[arg-type]  # one of the two below
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}/"

    async def _hang(self, _: web.Request) -> web.Response:
        self.hanging += 1
        if self.hanging == MANY:
            self.all_came.set()
        await self.let_go.wait()
        return web.Response()

    async def _answer(self, _: web.Request) -> web.Response:
        self.answered.set()
        return web.Response()


async def test_a_receiver_that_hangs_keeps_no_other_waiting(tmp_path: Path) -> None:
    receivers = Receivers()
    async with AsyncExitStack() as stack:
        hangs, answers = await receivers.serve(stack)
        store = SqliteStore(tmp_path / "haulier.db")
        await store.start()
        stack.push_async_callback(store.close)
        urls = [hangs] * (MANY) + [answers]
        for number, url in enumerate(urls):
            await store.insert(
                DeliveryDocument(id=f"d{number}", job_id="j", url=url, due_at=number)
            )
        webhooks = WebhookSender(store, attempts=1, timeout=60)
        webhooks.start()
        stack.push_async_callback(webhooks.close)
        async with asyncio.timeout(10):
            await receivers.answered.wait()
        assert receivers.hanging <= LIMIT_OF_A_HOST
        receivers.let_go.set()
        async with asyncio.timeout(20):
            await receivers.all_came.wait()


def test_a_host_that_times_out_gets_one_place_until_it_answers() -> None:
    places = Places()
    for number in range(LIMIT_OF_A_HOST):
        assert places.has_room_for(Place("u", f"j{number}", "slow"))
        places.take(str(number), Place("u", f"j{number}", "slow"))
    assert not places.has_room_for(Place("u", "j", "slow"))
    for number in range(LIMIT_OF_A_HOST):
        places.give_back(str(number))
    places.tried("slow", 10.0, timed_out=True)
    places.take("again", Place("u", "j", "slow"))
    assert LIMIT_AFTER_A_TIMEOUT == 1
    assert not places.has_room_for(Place("u", "j", "slow"))
    assert places.has_room_for(Place("u", "j", "other"))
    places.tried("slow", 0.1, timed_out=False)
    assert places.has_room_for(Place("u", "j", "slow"))


def test_one_user_leaves_room_for_others_whatever_the_hosts() -> None:
    places = Places()
    for number in range(LIMIT_OF_A_USER):
        places.take(str(number), Place("greedy", f"j{number}", f"host{number}"))
    assert not places.has_room_for(Place("greedy", "j", "host"))
    assert places.has_room_for(Place("plain", "j", "host"))
    assert not places.full


def test_those_behind_many_wait_as_long_as_those_take() -> None:
    places = Places()
    places.tried("quick", 0.0, timed_out=False)
    places.tried("slow", 10.0, timed_out=True)
    assert places.wait("quick", 600) < 10
    assert places.wait("slow", 3) > 15
    assert places.wait("slow", 10_000) <= 60


def test_places_are_counted_in_all() -> None:
    places = Places()
    for number in range(DELIVERIES_AT_ONCE):
        places.take(str(number), Place(f"u{number}", f"j{number}", f"host{number}"))
    assert places.full
    assert "7" in places
    assert not places.has_room_for(Place("u", "j", "host"))
    places.give_back("7")
    assert places.has_room_for(Place("u", "j", "host"))
