"""Containers a second of a standalone process, beside the plain loop over the same SDK (`bench.containers`).

Sixty jobs of one task (`echo hello`) are submitted at once; four slots. The loop runs four at once too.
Usage: python -m bench containers
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from docker import APIClient

from bench.containers import AT_ONCE, IMAGE, loop
from bench.servers import Jobs, cpu_of, standalone
from bench.turns import Comparison, in_turns, rate
from haulier.client import Client

NEEDED = 1.3
JOBS = 60


async def measure(environment: dict[str, str], rounds: int) -> Comparison:
    """Compare, in turns."""
    host = {"DOCKER_HOST": environment["DOCKER_HOST"]}
    api = APIClient(base_url=host["DOCKER_HOST"], max_pool_size=64)
    document = {
        "name": "bench",
        "tasks": [{"name": "hello", "image": IMAGE, "run": "echo hello"}],
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        standalone(host, Path(folder), AT_ONCE) as server,
    ):
        async with Client(server.address) as client:
            jobs = Jobs(client, document)

            async def ours(share: float) -> float:
                count = round(JOBS * share)
                with cpu_of({"standalone": server}, count):
                    return await rate(count, jobs.run(count))

            async def floor(share: float) -> float:
                count = round(JOBS * share)
                return await rate(count, loop(api, count))

            mine, theirs = await in_turns(rounds, floor, ours)
    api.close()
    return Comparison("standalone", "containers", "the plain loop", NEEDED, mine, theirs)
