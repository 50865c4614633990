"""Receivers of webhooks do not wait for one another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from coordinator.due.webhooks import DELIVERIES_AT_ONCE, LIMIT_OF_ONE, WebhookSender
from coordinator.store.sqlite import SqliteStore
from shared.model.documents import DeliveryDocument


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
        if self.hanging == DELIVERIES_AT_ONCE * 2:
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
        urls = [hangs] * (DELIVERIES_AT_ONCE * 2) + [answers]
        for number, url in enumerate(urls):
            await store.insert(
                DeliveryDocument(id=f"d{number}", job_id="j", url=url, due_at=number)
            )
        webhooks = WebhookSender(store, attempts=1, timeout=60)
        webhooks.start()
        stack.push_async_callback(webhooks.close)
        async with asyncio.timeout(10):
            await receivers.answered.wait()
        assert receivers.hanging <= LIMIT_OF_ONE
        receivers.let_go.set()
        async with asyncio.timeout(20):
            await receivers.all_came.wait()
