"""Tasks a second of a standalone process with local processes: 100 jobs of 10 tasks (`true`), 4 slots.

Beside bare processes: `sh` run on an empty script, four at once. Usage: python -m bench local
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.servers import SHELL, Jobs, cpu_of, standalone
from bench.turns import Comparison, in_turns, rate
from haulier.client import Client

SLOTS = 4
JOBS, TASKS = 100, 10


async def bare(script: Path, count: int) -> None:
    """Run `count` bare processes, four at once."""

    async def slot(left: Iterator[int]) -> None:
        for _ in left:
            process = await asyncio.create_subprocess_exec("sh", str(script))
            await process.wait()

    left = iter(range(count))
    await asyncio.gather(*(slot(left) for _ in range(SLOTS)))


async def measure(_: dict[str, str], rounds: int) -> Comparison:
    """Compare, in turns."""
    document = {
        "name": "bench",
        "tasks": [{"name": f"task {n + 1}", "run": "true"} for n in range(TASKS)],
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        standalone(SHELL, Path(folder), SLOTS) as server,
    ):
        script = Path(folder) / "script"
        script.write_text("true")
        async with Client(server.address) as client:
            jobs = Jobs(client, document)

            async def ours(share: float) -> float:
                count = round(JOBS * share)
                with cpu_of({"standalone": server}, count * TASKS):
                    return await rate(count * TASKS, jobs.run(count))

            async def floor(share: float) -> float:
                count = round(JOBS * TASKS * share)
                return await rate(count, bare(script, count))

            mine, theirs = await in_turns(rounds, floor, ours)
    return Comparison("standalone", "local tasks", "bare processes", 0.1, mine, theirs)
