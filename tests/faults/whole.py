"""Whole systems in this process: a coordinator and a worker on real services, or standalone; each process of theirs
with loops of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from coordinator.app import Coordinator, make_store
from haulier.standalone import start_both
from shared.broker import from_config
from shared.config import Config
from shared.config.load import load
from shared.model.messages import MessageCodec
from shared.supervision import Supervision, present
from worker.app import Worker

_T = TypeVar("_T")

LINES = 200
KEY = "the key of these systems"
"""What is shown to a system, whether it asks for that or not."""
IMAGE = "alpine:3.18.3"
"""Where containers run: the others take no notice of it."""
SCRIPT = f"for n in $(seq {LINES}); do echo line $n; done; sleep 0.8; echo the end"
LOG = "".join(f"line {n + 1}\n" for n in range(LINES)) + "the end\n"
JOB = {
    "name": "job",
    "wait": {"timeout": "60s"},
    "tasks": [{"name": "talk", "image": IMAGE, "run": SCRIPT}],
}


class Process:
    """What would be a process: code that runs in it has loops of its own."""

    def __init__(self) -> None:
        self.supervision = Supervision()
        self._context = copy_context()
        self._context.run(present.set, self.supervision)
        self._stack = AsyncExitStack()
        self.url = ""
        """Of its health."""
        self.worker_url = ""
        """Of the worker's, where it is both."""

    async def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something in it."""
        return await asyncio.create_task(work, context=self._context)

    async def close(self) -> None:
        """End all that was begun in it."""
        await self.do(self._stack.aclose())

    async def coordinate(self, config: Config) -> None:
        """Be a coordinator."""
        store, codec = make_store(config, None), MessageCodec(None)
        broker = from_config.rabbitmq(config, "coordinator")
        self._stack.push_async_callback(store.close)
        self._stack.push_async_callback(broker.close)
        await store.start()
        await broker.start()
        made = Coordinator(config, store, broker, codec)
        self._stack.push_async_callback(made.close)
        await made.start()
        self.url = made.address

    async def work(self, config: Config) -> None:
        """Be a worker."""
        broker = from_config.rabbitmq(config, "worker")
        self._stack.push_async_callback(broker.close)
        await broker.start()
        made = Worker(config, broker, MessageCodec(None))
        self._stack.push_async_callback(made.close)
        await made.open_runtime()
        await made.start()
        self.url = f"http://127.0.0.1:{made.daemon.beats.port}"

    async def stand_alone(self, config: Config) -> None:
        """Be both."""
        store, codec, broker = (
            make_store(config, None),
            MessageCodec(None),
            from_config.memory(config),
        )
        self._stack.push_async_callback(store.close)
        self._stack.push_async_callback(broker.close)
        await store.start()
        await broker.start()
        coordinator, worker = (
            Coordinator(config, store, broker, codec),
            Worker(config, broker, codec),
        )
        self._stack.push_async_callback(coordinator.close)
        self._stack.push_async_callback(worker.close)
        await start_both(config, coordinator, worker, store)
        self.url = coordinator.address
        self.worker_url = f"http://127.0.0.1:{worker.daemon.beats.port}"


class System:
    """Processes that make up a whole; the API is the first one's."""

    def __init__(self, session: aiohttp.ClientSession, *processes: Process) -> None:
        self._session = session
        self._followed: set[str] = set()
        self.processes = processes

    async def run_job(self) -> tuple[str, str]:
        """Run a job that talks, and follow its log meanwhile; return its state and its log."""
        url = self.processes[0].url
        job, followed = await asyncio.gather(self._submit(url), self._follow(url))
        assert followed.endswith(LOG), "a run that was made anew is followed too"
        async with self._session.get(f"{url}/jobs/{job['id']}/log/download") as answer:
            return job["state"], await answer.text()

    def pass_over(self, *jobs: str) -> None:
        """Don't take others' jobs for those of `run_job`."""
        self._followed.update(jobs)

    async def _submit(self, url: str) -> Any:
        async with self._session.post(f"{url}/jobs", json=JOB) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def _follow(self, url: str) -> str:
        """Return the lines of the next job's log, as its stream has them."""
        while True:
            async with self._session.get(f"{url}/jobs?size=1") as answer:
                newest = (await answer.json())["items"]
            if newest and newest[0]["id"] not in self._followed:
                break
            await asyncio.sleep(0.05)
        self._followed.add(newest[0]["id"])
        async with self._session.get(f"{url}/jobs/{newest[0]['id']}/log/stream") as answer:
            events = (await answer.text()).split("event: end")[0].splitlines()
        return "".join(f"{line[6:]}\n" for line in events if line.startswith("data: "))

    async def health(self, process: Process, path: str) -> tuple[int, str]:
        """Return what a process says of its health: the status, and the reason."""
        async with self._session.get(process.url + path) as answer:
            return answer.status, (await answer.json()).get("message", "")

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often loops of each name were begun again."""
        return sum((process.supervision.restarts for process in self.processes), start=Counter())


def configured(folder: Path, settings: Mapping[str, str]) -> Config:
    """Return the configuration of a system in `folder`."""
    environment = {
        "HAULIER_ENGINE_BEAT": "1s",
        "HAULIER_ENGINE_LEASE": "17s",
        "HAULIER_ENGINE_SWEEP": "1s",
        "HAULIER_ENGINE_RECONNECT_CAP": "2s",
        "HAULIER_RUNTIME_TYPE": "shell",
        "HAULIER_RUNTIME_SHELL_IGNORE_IMAGE": "true",
        "HAULIER_COORDINATOR_ADDRESS": "127.0.0.1:0",
        "HAULIER_WORKER_ADDRESS": "127.0.0.1:0",
        "HAULIER_WORKER_DATA": str(folder / "worker"),
        "HAULIER_WORKER_QUEUES_DEFAULT": "2",
        "HAULIER_DATASTORE_SQLITE_PATH": str(folder / "haulier.db"),
        **settings,
    }
    return load(environ=environment, cwd=folder, home=folder).config


@asynccontextmanager
async def system(config: Config) -> AsyncIterator[System]:
    """Have a system: a cluster where the broker is RabbitMQ, else standalone."""
    first = Process()
    processes = [first]
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
        )
        stack.push_async_callback(first.close)
        if config.broker.type == "rabbitmq":
            await first.do(first.coordinate(config))
            second = Process()
            processes.append(second)
            stack.push_async_callback(second.close)
            await second.do(second.work(config))
        else:
            await first.do(first.stand_alone(config))
        yield System(session, *processes)
