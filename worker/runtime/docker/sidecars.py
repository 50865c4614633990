"""Runs sidecars: starts them, waits until they are ready, and removes them when the task ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from docker.errors import APIError

from shared.durations import duration_seconds
from shared.model import language
from shared.model.language import Sidecar, SidecarProbe
from shared.supervision import end_tasks, start_task
from worker.runtime.docker.container import Container
from worker.runtime.docker.engine import Engine, EngineGoneError
from worker.runtime.errors import LINES, RunLostError, Tail, TaskError, failure
from worker.runtime.stages import seconds_of

_INTERVAL = 0.1
_ONE_TRY = 5.0


def adjust(sidecar: Sidecar, body: dict[str, Any], *, published: bool) -> None:
    """Keep the end of its log, to say why it failed; publish its port if `published`."""
    body["HostConfig"]["LogConfig"] = {"Type": "json-file", "Config": {"max-size": "1m"}}
    if published and sidecar.probe is not None:
        port = f"{_port(sidecar.probe)}/tcp"
        body["ExposedPorts"] = {port: {}}
        body["HostConfig"]["PortBindings"] = {port: [{"HostPort": ""}]}


class Beside(msgspec.Struct, frozen=True):
    """A sidecar and its container. `network`: the one on which the worker may reach it."""

    engine: Engine
    sidecar: Sidecar
    container: Container
    network: str
    published: bool

    async def begin(self) -> None:
        """Start it and wait until it is ready. Raises TaskError, RunLostError."""
        await self.container.start()
        if self.sidecar.probe is None:
            return
        timeout = self.sidecar.probe.timeout or language.DEFAULT_PROBE_TIMEOUT
        try:
            async with asyncio.timeout(duration_seconds(timeout)):
                await self._ready(self.sidecar.probe)
        except TimeoutError:
            raise await self._problem(f"not ready after {timeout}") from None

    async def _ready(self, probe: SidecarProbe) -> None:
        timeout = aiohttp.ClientTimeout(total=_ONE_TRY)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                address = await self._address(probe)
                if address and await _answers(client, f"http://{address}{probe.path or '/'}"):
                    return
                await asyncio.sleep(_INTERVAL)

    async def _address(self, probe: SidecarProbe) -> str:
        """Return `host:port`; empty where it has none yet. Raises TaskError when it has ended."""
        try:
            found = await self.engine.call(self.engine.api.inspect_container, self.container.id)
        except APIError:
            raise RunLostError("a sidecar vanished") from None
        state = found["State"]
        if not state["Running"]:
            raise await self._problem(
                f"ended with exit code {state['ExitCode']} before it was ready"
            )
        port = _port(probe)
        if self.published:
            return self._published(found, port)
        address = found["NetworkSettings"]["Networks"].get(self.network, {}).get("IPAddress")
        return f"{address}:{port}" if address else ""

    def _published(self, found: dict[str, Any], port: int) -> str:
        bindings = (found["NetworkSettings"].get("Ports") or {}).get(f"{port}/tcp") or []
        host = urlsplit(self.engine.address.host).hostname or "127.0.0.1"
        return f"{host}:{bindings[0]['HostPort']}" if bindings else ""

    async def _problem(self, what: str) -> TaskError:
        tail = Tail()
        with contextlib.suppress(APIError, EngineGoneError):
            logs = self.engine.api.logs
            tail.add(await self.engine.call(logs, self.container.id, tail=LINES))
        return TaskError(failure(f"sidecar {self.sidecar.name!r}: {what}", tail))


class TimeLimit(msgspec.Struct, frozen=True):
    """How long a sidecar may run, in seconds, and what to say when it has run longer."""

    seconds: float
    late: str


def first_to_end(sidecars: Sequence[Sidecar]) -> TimeLimit | None:
    """Return the shortest of the sidecars' own time limits; the task fails with it. Raises TaskError."""
    limits = [
        TimeLimit(seconds, f"sidecar {sidecar.name!r}: timed out after {sidecar.timeout}")
        for sidecar in sidecars
        if (seconds := seconds_of(sidecar.timeout))
    ]
    return min(limits, key=lambda limit: limit.seconds, default=None)


@contextlib.asynccontextmanager
async def run_beside(sidecars: list[Beside]) -> AsyncIterator[None]:
    """Have sidecars run, ready, while the body runs; they are gone after it. Raises TaskError."""
    try:
        await _begin_all(sidecars)
        yield
    finally:
        await asyncio.gather(*(_remove(one) for one in sidecars))


async def _begin_all(sidecars: list[Beside]) -> None:
    tasks = [start_task(one.begin(), "sidecar") for one in sidecars]
    try:
        await asyncio.gather(*tasks)
    finally:
        await end_tasks(*tasks)


async def _remove(one: Beside) -> None:
    with contextlib.suppress(APIError, EngineGoneError):
        remove = one.engine.api.remove_container
        await one.engine.call(remove, one.container.id, force=True, v=True)


async def _answers(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(url, allow_redirects=False) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return False


def _port(probe: SidecarProbe) -> int:
    return probe.port or language.DEFAULT_PROBE_PORT
