"""Hearing of state changes for as long as a stream lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from coordinator.api.context import Api
from shared.model.messages import StateChanged


@asynccontextmanager
async def listening(
    api: Api, heard: Callable[[StateChanged], None]
) -> AsyncIterator[asyncio.Task[None]]:
    """Call `heard` with each state change from now on. Yields the task that listens."""
    events = api.commands.events()

    async def listen() -> None:
        async for event in events:
            heard(event)

    listener = asyncio.create_task(listen(), name="state changes for a stream")
    await asyncio.sleep(0)  # so that an iterator that subscribes when first asked does so now
    try:
        yield listener
    finally:
        listener.cancel()
        await asyncio.wait([listener])
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
