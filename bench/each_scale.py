"""An `each` over many items beside one over few: memory of the coordinator, and time per item.

Tasks are empty scripts of the shell runtime. Usage: python -m bench.each_scale [--few N] [--many N] [--cluster]
With --cluster the coordinator is a process of its own, over the RabbitMQ and MongoDB of the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pymongo

from bench.servers import SHELL, Server, coordinator, standalone, worker
from haulier.client import Client
from tests.services.management import Management

FEW, MANY = 200, 20_000
SLOTS = 8
MOST_MEMORY = 50.0
"""MiB by which the peaks may differ."""
MOST_TIME = 1.3
"""How much more an item of many may take than one of few."""
LOOK_EVERY = 1.0
"""Seconds between two looks: each costs the coordinator some milliseconds."""


class Measured(msgspec.Struct, frozen=True):
    """What one run of so many items took."""

    items: int
    seconds: float
    cpu_seconds: float
    idle_mib: float
    peak_mib: float

    def __str__(self) -> str:
        each = self.seconds / self.items * 1000
        cpu = self.cpu_seconds / self.items * 1000
        return (
            f"{self.items:6} items: {self.seconds:7.1f} s, {each:6.2f} ms an item "
            f"({cpu:.2f} ms of processor time), peak {self.peak_mib:.1f} MiB "
            f"({self.idle_mib:.1f} MiB before)"
        )


def peak_mib(server: Server) -> float:
    """Return the most memory that a process has had resident."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@contextmanager
def one_process() -> Iterator[Server]:
    """A standalone process: what is measured holds the worker and the broker too."""
    with tempfile.TemporaryDirectory() as folder, standalone(SHELL, Path(folder), SLOTS) as server:
        yield server


@contextmanager
def cluster() -> Iterator[Server]:
    """A coordinator, with a worker beside it, on a fresh virtual host and database."""
    name = f"each-scale-{uuid4().hex}"
    amqp, mongodb = os.environ["HAULIER_TEST_RABBITMQ_URL"], os.environ["HAULIER_TEST_MONGODB_URL"]
    management = Management(os.environ["HAULIER_TEST_RABBITMQ_MANAGEMENT_URL"])
    settings = {
        "HAULIER_BROKER_TYPE": "rabbitmq",
        "HAULIER_BROKER_RABBITMQ_URL": f"{amqp.rstrip('/')}/{name}",
        "HAULIER_DATASTORE_TYPE": "mongodb",
        "HAULIER_DATASTORE_MONGODB_URL": mongodb,
        "HAULIER_DATASTORE_MONGODB_DATABASE": name,
    }
    management.add_vhost(name)
    with ExitStack() as stack:
        stack.callback(management.delete_vhost, name)
        client = stack.enter_context(pymongo.MongoClient[dict[str, object]](mongodb))
        stack.callback(client.drop_database, name)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(coordinator(settings, folder))
        stack.enter_context(worker(settings, folder, SLOTS))
        yield server


async def measure(server: Server, items: int) -> Measured:
    """Run an `each` over so many items."""
    task = {"name": "nothing", "run": "true"}
    each = {"list": f"sequence(0, {items})", "task": task}
    definition = {"name": "each", "tasks": [{"name": "each", "each": each}]}
    idle, cpu = peak_mib(server), server.cpu_seconds()
    async with Client(server.address) as client:
        await client.submit(definition)
        while (job := (await client.jobs(size=1)).items[0]).state != "COMPLETED":
            if job.state in ("FAILED", "CANCELLED"):
                raise RuntimeError(job.error)
            await asyncio.sleep(LOOK_EVERY)
    assert job.created_at is not None
    assert job.completed_at is not None
    took = (job.completed_at - job.created_at).total_seconds()
    return Measured(items, took, server.cpu_seconds() - cpu, idle, peak_mib(server))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.each_scale", description=__doc__)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--cluster", action="store_true")
    given = parser.parse_args()
    where = cluster if given.cluster else one_process
    found = []
    for items in (given.few, given.many):
        with where() as server:
            found.append(asyncio.run(measure(server, items)))
        print(found[-1], flush=True)
    few, many = found
    memory = many.peak_mib - few.peak_mib
    slower = (many.seconds / many.items) / (few.seconds / few.items)
    print(f"peaks differ by {memory:.1f} MiB (at most {MOST_MEMORY:.0f})")
    print(f"time per item: {slower:.2f} times (at most {MOST_TIME})")
    if memory >= MOST_MEMORY or slower >= MOST_TIME:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
