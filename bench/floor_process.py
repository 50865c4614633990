"""The floor as a process of its own: for each number of tasks on a line of stdin, the rate on a line of stdout."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from bench.floor import Floor
from bench.turns import rate


async def main(amqp: str, mongodb: str, database: str) -> None:
    floor = Floor(amqp, mongodb, database)
    await floor.start()
    while line := await asyncio.to_thread(sys.stdin.readline):
        count = int(line)
        print(await rate(count, floor.run(count)), flush=True)
    await floor.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
