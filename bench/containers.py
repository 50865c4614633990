"""Containers a second: the Docker runtime beside the plain loop over the same SDK, in turns in one run.

Both run `echo hello`, four at once. The loop creates, starts, reads the log, waits and removes.
Usage: python -m bench.containers [ROUNDS] [CONTAINERS]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from docker import APIClient

from shared.config import Config
from shared.config.schema import WorkerSettings
from shared.model.language import TaskDefinition
from worker.runtime.docker import DockerRuntime
from worker.runtime.port import Assignment

IMAGE = "alpine:3.18.3"
AT_ONCE = 4


class Log:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data

    async def progress(self, percent: float) -> None:
        raise AssertionError(f"no progress was made, and {percent} told")

    async def redacted(self, text: str) -> str:
        return text


def loop_once(api: APIClient) -> None:
    container = api.create_container(IMAGE, ["echo", "hello"])["Id"]
    api.start(container)
    log = b"".join(api.logs(container, stream=True, follow=True))
    assert api.wait(container)["StatusCode"] == 0
    assert log == b"hello\n"
    api.remove_container(container)


async def loop(api: APIClient, count: int) -> None:
    def work() -> None:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(lambda _: loop_once(api), range(count)))

    await asyncio.to_thread(work)


async def slot(runtime: DockerRuntime, number: int, left: list[int]) -> None:
    removals = set()
    while left:
        count = left.pop()
        task = TaskDefinition(name="hello", image=IMAGE, run="echo hello")
        assignment = Assignment(
            task_id=f"task{number}{count}",
            job_id="bench",
            node_id="bench",
            nonce=f"{number}-{count}",
            attempt=1,
            task=task,
            slot=number,
        )
        log = Log()
        run = await runtime.prepare(assignment, log)
        outcome = await run.run()
        assert outcome.error is None, outcome
        assert log.data == b"hello\n", log.data
        removals.add(asyncio.create_task(run.remove()))
    await asyncio.gather(*removals)


async def ours(runtime: DockerRuntime, count: int) -> None:
    left = list(range(count))
    await asyncio.gather(*(slot(runtime, number, left) for number in range(AT_ONCE)))


async def rate(work: Callable[[int], Awaitable[None]], count: int) -> float:
    began = time.perf_counter()
    await work(count)
    return count / (time.perf_counter() - began)


async def main(rounds: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as data:
        config = Config(worker=WorkerSettings(data=data, queues={"default": AT_ONCE}))
        runtime = DockerRuntime(config, "bench")
        await runtime.start()
        runtime.warm_up()
        api = APIClient(max_pool_size=64)
        await ours(runtime, AT_ONCE * 2)
        ratios = []
        for number in range(rounds):
            floor = await rate(lambda n: loop(api, n), count)
            mine = await rate(lambda n: ours(runtime, n), count)
            ratios.append(mine / floor)
            print(
                f"round {number + 1}: loop {floor:.1f}/s, runtime {mine:.1f}/s, ratio {ratios[-1]:.2f}"
            )
        print(f"median ratio {statistics.median(ratios):.2f}")
        await runtime.close()


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*arguments) if arguments else main(3, 60))
