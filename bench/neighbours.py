"""Bad neighbours beside a plain user's jobs of one step, over real processes: promise 13 of the engine, in figures.

Usage: python -m bench.neighbours [--only NAME …] [--list]. It ends with 1 where a figure is past what is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from bench.bad_neighbours import NEIGHBOURS, Ground, Neighbour, Outcome
from bench.control_plane import services
from bench.servers import SHELL, Server, coordinator, standalone, worker
from bench.watch import Watcher
from haulier.client import Client
from haulier.errors import HaulierError

ALONE = 6.0
"""Seconds in which the plain user is alone, before a neighbour comes."""
AFTER = 3.0
LONGEST = 180.0
"""Seconds that a neighbour has."""
HEALTH, DELAY, MEMORY = 1.0, 5.0, 500.0
"""Seconds, seconds and MiB that are asked for."""
PASSWORD = "a password of a bench"
AUTH = {
    "HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_ENABLED": "true",
    "HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_USERNAME": "boss",
    "HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_PASSWORD": PASSWORD,
    "HAULIER_COORDINATOR_WEBHOOKS_ALLOW": "127.0.0.1",
}


class Row(msgspec.Struct, frozen=True):
    """What came of one neighbour."""

    name: str
    alone: float
    """Seconds of the slowest answer of `/health` before it came: how busy the machine is with others."""
    health: float
    delay: float
    memory: float
    jobs: int
    outcome: Outcome

    @property
    def within(self) -> bool:
        """Whether it is what is asked for."""
        beside = self.health < HEALTH and self.delay < DELAY and self.memory < MEMORY
        return beside and self.outcome.within

    def __str__(self) -> str:
        mark = "" if self.within else " **past it**"
        return (
            f"| {self.name} | {self.health:.2f} s ({self.alone:.2f}) | {self.delay:.1f} s of {self.jobs} jobs "
            f"| {self.memory:.0f} MiB | {self.outcome.figure}{mark} |"
        )


@asynccontextmanager
async def cluster(folder: Path, more: dict[str, str]) -> AsyncIterator[Ground]:
    """Two coordinators, a worker of the plain user's queue, and one of the default queue."""
    async with services(dict(os.environ)) as found, AsyncExitStack() as stack:
        settings = {**found.settings(), **AUTH, **more}
        servers = [stack.enter_context(coordinator(settings, folder)) for _ in range(2)]
        stack.enter_context(worker({**settings, **queues(plain=4)}, folder, 0))
        stack.enter_context(worker(settings, folder, 8))
        yield await _ground(stack, servers, folder, settings)


@asynccontextmanager
async def one_process(folder: Path, more: dict[str, str]) -> AsyncIterator[Ground]:
    """A standalone process with the same queues."""
    async with AsyncExitStack() as stack:
        settings = {**SHELL, **AUTH, **more}
        server = standalone({**settings, **queues(plain=4)}, folder, 8)
        yield await _ground(stack, [stack.enter_context(server)], folder, settings)


def queues(**slots: int) -> dict[str, str]:
    """Return the settings of a worker with so many slots of these queues."""
    return {f"HAULIER_WORKER_QUEUES_{name.upper()}": str(n) for name, n in slots.items()}


async def _ground(
    stack: AsyncExitStack, servers: list[Server], folder: Path, settings: dict[str, str]
) -> Ground:
    def address(user: str, server: Server) -> str:
        return server.address.replace("://", f"://{user}:{PASSWORD.replace(' ', '%20')}@")

    boss = await stack.enter_async_context(Client(address("boss", servers[0]), timeout=120))
    for user in ("plain", "bad"):
        await boss.add_user(user, PASSWORD)
    bad = [
        await stack.enter_async_context(Client(address("bad", server), timeout=120))
        for server in servers
    ]
    plain = [address("plain", server) for server in servers]
    return Ground(servers, boss, bad, plain, folder, settings)


async def measure(neighbour: Neighbour) -> Row:
    """Watch a plain user alone, then beside the neighbour."""
    with tempfile.TemporaryDirectory() as folder:
        where = one_process if neighbour.standalone else cluster
        async with where(Path(folder), dict(neighbour.settings)) as ground:
            pids = [server.pid for server in ground.servers]
            async with Watcher(ground.plain, pids) as alone:
                await asyncio.sleep(ALONE)
            async with Watcher(ground.plain, pids) as beside:
                outcome = await _let_loose(neighbour, ground)
                await asyncio.sleep(AFTER)
    usual = statistics.median(alone.seen.jobs)
    seen = beside.seen
    return Row(
        neighbour.name,
        max(alone.seen.health),
        max(seen.health),
        max(seen.jobs) - usual,
        seen.memory,
        len(seen.jobs),
        outcome,
    )


async def _let_loose(neighbour: Neighbour, ground: Ground) -> Outcome:
    try:
        async with asyncio.timeout(LONGEST):
            return await neighbour.act(ground)
    except TimeoutError:
        return Outcome(f"not done after {LONGEST:.0f} s", within=False)
    except HaulierError as error:
        return Outcome(f"gave up: {error}", within=False)


async def run(neighbours: list[Neighbour]) -> bool:
    """Measure one after the other; tell whether all is within what is asked for."""
    rows = []
    for neighbour in neighbours:
        began, load = time.monotonic(), os.getloadavg()[0]
        rows.append(await measure(neighbour))
        took = time.monotonic() - began
        print(f"{rows[-1]}\n  ({took:.0f} s; load before and after: {load:.1f}", end=", ")
        print(f"{os.getloadavg()[0]:.1f}, of {os.cpu_count()} processors)", flush=True)
    print(
        "\n| neighbour | `/health` at worst (alone) | plain job, more than alone | memory | itself |"
    )
    print("|---|---:|---:|---:|---|", *rows, sep="\n")
    print(f"\nAsked for: < {HEALTH:.0f} s, < {DELAY:.0f} s, < {MEMORY:.0f} MiB.")
    return all(row.within for row in rows)


def main() -> None:
    known = {each.name: each for each in NEIGHBOURS}
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=known, default=list(known), metavar="NAME")
    parser.add_argument("--list", action="store_true", help="say what each neighbour does")
    given = parser.parse_args()
    if given.list:
        print(*(f"{each.name:16} {each.does}" for each in NEIGHBOURS), sep="\n")
        return
    # Asked to stop, it leaves nothing behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not asyncio.run(run([known[name] for name in given.only])):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
