"""The path of one task: which files of the product run from a submit to the job's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pymongo

from devservices import docker_engine, mongodb, rabbitmq
from devservices.places import free_port
from structure.source import PRODUCT

RECORDER = Path(__file__).with_name("recorder.py")
START_SECONDS = 60.0
END_SECONDS = 60.0
POLL_SECONDS = 0.05
START_UP_SECONDS = 0.5
"""For what processes do at their start, when they already say that they are ready."""

SETTLE_SECONDS = 1.5
"""For what processes do by themselves, which is no part of the path."""
READY = {
    "standalone": b"haulier is ready",
    "coordinator": b"coordinator started",
    "worker": b"worker started",
}
"""What a process logs once it is up."""

JOB = {
    "name": "one task",
    "wait": {"timeout": f"{END_SECONDS:g}s"},
    "tasks": [{"name": "greet", "image": "alpine:3.18.3", "run": "echo hello"}],
}


RARELY = {
    "HAULIER_ENGINE_BEAT": "1m",
    "HAULIER_ENGINE_LEASE": "5m",
    "HAULIER_ENGINE_SWEEP": "1m",
}
"""Beats come on the same way as what a task sends: none must fall into the time of settling."""


class PathError(Exception):
    """The path could not be measured; the message says why."""


class Recorded:
    """A running process of Haulier that notes what runs in it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def ready(self, mark: bytes) -> None:
        """Return once it has logged `mark`."""
        async with asyncio.timeout(START_SECONDS):
            while mark not in self._log.read_bytes():
                if self._process.returncode is not None:
                    raise self._ended()
                await asyncio.sleep(POLL_SECONDS)

    async def tell(self, command: str) -> list[str]:
        """Say `settle`, `start` or `stop`, which returns the files that were noted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        answer = await self._process.stdout.readline()
        if not answer:
            raise self._ended()
        found: list[str] = json.loads(answer)
        return found

    def _ended(self) -> PathError:
        return PathError(f"a process ended by itself:\n{self._log.read_text(errors='replace')}")


@asynccontextmanager
async def recorded(
    tree: Path, role: str, settings: Mapping[str, str], folder: Path
) -> AsyncIterator[Recorded]:
    """Run a process of that tree until it is ready; ended in order on the way out."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HAULIER_")}
    log = folder / f"{role}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(str(RECORDER), str(tree), ",".join(PRODUCT), "run", role),
            cwd=tree,
            env={**plain, **settings},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
        )
    made = Recorded(process, log)
    try:
        await made.ready(READY[role])
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def passed(tree: Path, way: str) -> list[str]:
    """Return the files of that tree's product that one task passes by one of `WAYS`.

    Raises `PathError`.
    """
    return sorted(await WAYS[way](tree))


def answering_ways() -> list[str]:
    """Return the ways whose services answer."""
    docker = docker_engine.answers()
    cluster = docker and rabbitmq.answers() and mongodb.answers()
    return [SHELL, *([DOCKER] if docker else []), *([CLUSTER] if cluster else [])]


async def _shell(tree: Path) -> set[str]:
    settings = {
        "HAULIER_RUNTIME_TYPE": "shell",
        "HAULIER_RUNTIME_SHELL_IGNORE_IMAGE": "true",
    }
    return await _run(tree, ("standalone",), settings)


async def _docker(tree: Path) -> set[str]:
    return await _run(tree, ("standalone",), {"DOCKER_HOST": docker_engine.address()})


async def _cluster(tree: Path) -> set[str]:
    with _vhost() as broker, _database() as datastore:
        docker = {"DOCKER_HOST": docker_engine.address()}
        return await _run(tree, ("worker", "coordinator"), {**broker, **datastore, **docker})


SHELL, DOCKER, CLUSTER = "standalone, shell", "standalone, Docker", "RabbitMQ, MongoDB, Docker"
WAYS = {SHELL: _shell, DOCKER: _docker, CLUSTER: _cluster}
"""One process with everything embedded, or a coordinator and a worker on real services."""


async def _run(tree: Path, roles: tuple[str, ...], settings: Mapping[str, str]) -> set[str]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haulier-path-")))
        address = f"localhost:{free_port()}"
        (folder / "haulier.toml").touch()
        own = {
            "HAULIER_CONFIG": str(folder / "haulier.toml"),
            "HAULIER_COORDINATOR_ADDRESS": address,
            "HAULIER_WORKER_ADDRESS": "localhost:0",
            "HAULIER_WORKER_DATA": str(folder / "worker"),
            "HAULIER_DATASTORE_SQLITE_PATH": str(folder / "haulier.db"),
        }
        processes = [
            await stack.enter_async_context(
                recorded(tree, role, {**own, **RARELY, **settings}, folder)
            )
            for role in roles
        ]
        session = await stack.enter_async_context(aiohttp.ClientSession(f"http://{address}"))
        await asyncio.sleep(START_UP_SECONDS)
        for process in processes:
            await process.tell("settle")
        await asyncio.sleep(SETTLE_SECONDS)
        for process in processes:
            await process.tell("start")
        await _run_job(session)
        return {file for process in processes for file in await process.tell("stop")}


async def _run_job(session: aiohttp.ClientSession) -> None:
    async with session.post("/jobs", json=JOB) as answer:
        job = await answer.json()
    if job.get("state") != "COMPLETED":
        raise PathError(f"the job did not complete: {job}")


@contextmanager
def _vhost() -> Iterator[dict[str, str]]:
    """A virtual host of RabbitMQ for this measurement alone."""
    found, name = rabbitmq.env(), f"measure-{uuid4().hex}"
    management = found[rabbitmq.MANAGEMENT_URL]
    user = urlsplit(management).username or "guest"
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    _manage(management, "PUT", f"vhosts/{name}", {})
    _manage(management, "PUT", f"permissions/{name}/{user}", rights)
    yield {
        "HAULIER_BROKER_TYPE": "rabbitmq",
        "HAULIER_BROKER_RABBITMQ_URL": f"{found[rabbitmq.URL].rstrip('/')}/{name}",
        "HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL": management,
    }
    _manage(management, "DELETE", f"vhosts/{name}", None)


def _manage(management: str, method: str, path: str, body: object) -> None:
    parts = urlsplit(management)
    secret = b64encode(f"{parts.username or 'guest'}:{parts.password or 'guest'}".encode()).decode()
    request = urllib.request.Request(
        f"{parts.scheme}://{parts.hostname}:{parts.port}/api/{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


@contextmanager
def _database() -> Iterator[dict[str, str]]:
    """A database of MongoDB for this measurement alone."""
    url, name = mongodb.env()[mongodb.URL], f"measure_{uuid4().hex}"
    yield {
        "HAULIER_DATASTORE_TYPE": "mongodb",
        "HAULIER_DATASTORE_MONGODB_URL": url,
        "HAULIER_DATASTORE_MONGODB_DATABASE": name,
    }
    with pymongo.MongoClient[dict[str, object]](url) as client:
        client.drop_database(name)
