"""What a bad neighbour costs others: how a plain user's jobs, `/health` and memory fare meanwhile, seen by a process of
its own, so that what the neighbour asks of this one is not counted."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
import psutil
from yarl import URL

from haulier.client import Client
from haulier.errors import HaulierError

PLAIN = {"name": "plain", "tasks": [{"name": "plain", "run": "true", "queue": "plain"}]}
HEALTH_EVERY, MEMORY_EVERY, LOOK_EVERY = 0.25, 0.2, 0.1
GIVEN_UP = 120.0
"""Seconds after which a plain job counts as one that never ends."""
MIB = 1 << 20


class Seen(msgspec.Struct):
    """What was seen: seconds of each answer of `/health` and of each plain job, MiB at most of one process."""

    health: list[float] = []
    jobs: list[float] = []
    memory: float = 0.0


class Watcher:
    """Watches in a process of its own while its block runs; `seen` is there afterwards.

    `addresses` are the coordinators', with a plain user's name and password; `pids` their processes."""

    def __init__(self, addresses: Sequence[str], pids: Sequence[int]) -> None:
        self._here, there = multiprocessing.Pipe()
        spawned = multiprocessing.get_context("spawn")
        self._process = spawned.Process(target=_watch, args=(there, addresses, pids), daemon=True)
        self.seen = Seen()

    async def __aenter__(self) -> Self:
        self._process.start()
        await asyncio.to_thread(self._here.recv)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._here.send("end")
        self.seen = await asyncio.to_thread(self._here.recv)
        await asyncio.to_thread(self._process.join)


def _watch(there: Connection, addresses: Sequence[str], pids: Sequence[int]) -> None:
    asyncio.run(_watching(there, addresses, pids))


async def _watching(there: Connection, addresses: Sequence[str], pids: Sequence[int]) -> None:
    seen, over = Seen(), asyncio.Event()

    async def until_over(look: Callable[[], Awaitable[None]], every: float) -> None:
        while not over.is_set():
            await look()
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await over.wait()

    there.send("begun")
    async with asyncio.TaskGroup() as all_of_it, aiohttp.ClientSession() as session:
        looks = [all_of_it.create_task(until_over(lambda: _weigh(pids, seen), MEMORY_EVERY))]
        for address in addresses:
            health = _Health(session, URL(address).with_user(None) / "health", seen)
            looks.append(all_of_it.create_task(until_over(health.ask, HEALTH_EVERY)))
            looks.append(all_of_it.create_task(until_over(_PlainUser(address, seen).run, 0.5)))
        await asyncio.to_thread(there.recv)
        over.set()
        await asyncio.wait(looks)
    there.send(seen)


class _Health(msgspec.Struct):
    session: aiohttp.ClientSession
    url: URL
    seen: Seen

    async def ask(self) -> None:
        began = time.perf_counter()
        with suppress(aiohttp.ClientError):
            async with self.session.get(self.url) as answer:
                await answer.read()
        self.seen.health.append(time.perf_counter() - began)


class _PlainUser(msgspec.Struct):
    address: str
    seen: Seen

    async def run(self) -> None:
        """Submit a job of one step, and wait for its end."""
        began = time.perf_counter()
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVEN_UP), Client(self.address, timeout=GIVEN_UP) as client:
                await self._run(client)
        self.seen.jobs.append(time.perf_counter() - began)

    async def _run(self, client: Client) -> None:
        job_id = ""
        while True:
            with suppress(HaulierError):
                job_id = job_id or (await client.submit(PLAIN)).id
                if (await client.job(job_id)).state in ("COMPLETED", "FAILED", "CANCELLED"):
                    return
            await asyncio.sleep(LOOK_EVERY)


async def _weigh(pids: Sequence[int], seen: Seen) -> None:
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            weights = [each.memory_info().rss for each in family if each.is_running()]
            seen.memory = max(seen.memory, sum(weights) / MIB)
