"""Tasks a second through RabbitMQ and MongoDB, beside a floor of the same drivers (`bench.floor`).

A hundred jobs of ten tasks (`run: "true"`, local processes) are submitted at once to one coordinator; two workers run
them. Usage: python -m bench control_plane
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import pymongo
from yarl import URL

from bench.servers import Jobs, Server, coordinator, cpu_of, worker
from bench.turns import Comparison, in_turns, rate
from haulier.client import Client

NEEDED = 0.4
AMQP, MANAGEMENT, MONGODB = (
    f"HAULIER_TEST_{name}_URL" for name in ("RABBITMQ", "RABBITMQ_MANAGEMENT", "MONGODB")
)
"""Variables that `tools/services` sets."""
JOBS, TASKS = 100, 10
WORKERS, SLOTS = 2, 32
"""Together as many tasks at once as the floor has."""
FLOOR_TASKS = 1000


class Services(msgspec.Struct, frozen=True):
    """A virtual host and a database that nobody else uses."""

    amqp: str
    management: str
    mongodb: str
    name: str

    def settings(self) -> dict[str, str]:
        """Return the settings by which our processes find them."""
        return {
            "HAULIER_BROKER_TYPE": "rabbitmq",
            "HAULIER_BROKER_RABBITMQ_URL": self.amqp,
            "HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL": self.management,
            "HAULIER_DATASTORE_TYPE": "mongodb",
            "HAULIER_DATASTORE_MONGODB_URL": self.mongodb,
            "HAULIER_DATASTORE_MONGODB_DATABASE": self.name,
        }


@asynccontextmanager
async def services(environment: dict[str, str]) -> AsyncIterator[Services]:
    """Make them, and remove them in the end."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    management = URL(environment[MANAGEMENT])
    vhost = management / "api" / "vhosts" / name
    found = Services(
        amqp=f"{environment[AMQP].rstrip('/')}/{name}",
        management=str(management),
        mongodb=environment[MONGODB],
        name=name,
    )
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        await session.put(vhost)
        try:
            yield found
        finally:
            await session.delete(vhost)
            with pymongo.MongoClient[dict[str, object]](found.mongodb) as client:
                client.drop_database(name)


@contextmanager
def processes(found: Services, folder: Path) -> Iterator[dict[str, Server]]:
    """Start a coordinator and its workers."""
    with ExitStack() as stack:
        started = {
            "coordinator": stack.enter_context(coordinator(found.settings(), folder)),
            **{
                f"worker {number + 1}": stack.enter_context(worker(found.settings(), folder, SLOTS))
                for number in range(WORKERS)
            },
        }
        yield started


@asynccontextmanager
async def floor_process(found: Services) -> AsyncIterator[Process]:
    """Start the floor."""
    command = [sys.executable, "-m", "bench.floor_process"]
    process = await asyncio.create_subprocess_exec(
        *command, found.amqp, found.mongodb, found.name, stdin=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        process.stdin.close() if process.stdin else None
        await process.wait()


async def floor_rate(process: Process, share: float) -> float:
    """Have the floor do its share of a turn; return its rate."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{round(FLOOR_TASKS * share)}\n".encode())
    return float(await process.stdout.readline())


async def measure(environment: dict[str, str], rounds: int) -> Comparison:
    """Compare, in turns."""
    document = {
        "name": "bench",
        "tasks": [{"name": f"task {n + 1}", "run": "true"} for n in range(TASKS)],
    }
    with tempfile.TemporaryDirectory() as folder:
        async with services(environment) as found, floor_process(found) as floor:
            with processes(found, Path(folder)) as started:
                async with Client(started["coordinator"].address) as client:
                    jobs = Jobs(client, document)

                    async def ours(share: float) -> float:
                        count = round(JOBS * share)
                        with cpu_of(started, count * TASKS):
                            return await rate(count * TASKS, jobs.run(count))

                    mine, theirs = await in_turns(rounds, partial(floor_rate, floor), ours)
    return Comparison("control plane", "tasks", "bare drivers", NEEDED, mine, theirs)
