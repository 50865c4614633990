"""One run of a task in containers, its sidecars beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from docker.errors import APIError

from shared.durations import duration_seconds
from shared.model import language
from shared.model.documents import RunUsage
from shared.model.language import Sidecar, SidecarProbe, SmallTask
from shared.supervision import end_tasks, start_task
from shared.threads import in_thread
from worker.runtime.docker import networks
from worker.runtime.docker.container import Container, StartError
from worker.runtime.docker.engine import Engine, EngineGoneError
from worker.runtime.docker.networks import Sandbox, in_sandbox
from worker.runtime.docker.resources import (
    DockerContext,
    Made,
    Maker,
    RefusedError,
    engine_refusals,
)
from worker.runtime.docker.usage import Sampler, Used
from worker.runtime.port import Assignment, RunLostError, Sink, TaskError
from worker.runtime.stages import Exit, StagedRun, Tail, failure, following, seconds_of

MAIN = "main"
_KILLED = 137
_SANDBOX_FILES = frozenset({"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc"})


class DockerRun(StagedRun):
    """The port's Run in containers."""

    def __init__(self, assignment: Assignment, sink: Sink, services: DockerContext) -> None:
        super().__init__(
            assignment,
            sink,
            timeout=services.worker.limits.timeout,
            stop_timeout=services.stop_timeout,
            scratch=services.worker.limits.scratch,
        )
        self._services = services
        self._maker = Maker(assignment, sink, services)
        self._sampler = Sampler(services.engine)
        self._sandbox: Sandbox | None = None
        self._private = ""
        self._made: Made | None = None
        self._ran: list[Made] = []

    def _own_folder(self) -> Path | None:
        return self._maker.folder if self._services.shares_files else None

    # --- stages ---

    async def _prepare(self) -> None:
        try:
            await self._make()
        except EngineGoneError:
            await self._services.engine.back()  # or it would be lost again at once
            raise

    async def _make(self) -> None:
        task, services = self.assignment.task, self._services
        with engine_refusals(task):
            networks.check_networks(task, host_allowed=services.settings.host_network)
            await networks.look_up(task, services.engine, services.settings.networks)
            common = await self._maker.common()
            if task.sidecars:
                self._private = await self._maker.network()
            elif not task.networks and not common.mounted.targets & _SANDBOX_FILES:
                self._sandbox = services.sandboxes.take() if services.sandboxes else None
            self._made = await self._create(MAIN, task)

    async def _stage(self, index: int, small: SmallTask) -> Exit:
        with engine_refusals(self.assignment.task):
            return await self._run_part(str(index), small, await self._create(str(index), small))

    async def _main(self) -> Exit:
        assert self._made is not None
        task = self.assignment.task
        first = first_to_end(task.sidecars)
        now = asyncio.get_running_loop().time
        with engine_refusals(task):
            beside = await self._sidecars()
            began = now()
            async with run_beside(beside):
                main = self._run_part(MAIN, task, self._made)
                if first is None:
                    return await main
                left = max(0.001, began + first.seconds - now())
                return await self._within(left, main, first.late)

    async def _result(self) -> str:
        assert self._made is not None
        with engine_refusals(self.assignment.task):
            return await self._made.exchange.output(self._services.worker.limits.output)

    async def _settle(self) -> RunUsage | None:
        if self._sandbox is not None and self._services.sandboxes is not None:
            sandbox, self._sandbox = self._sandbox, None
            await self._services.sandboxes.give_back(sandbox)
        return await self._usage() if self._ran else None

    async def remove(self) -> None:
        """Remove the containers, networks and volumes, and give the sandbox back."""
        await self.wait_over()
        await self._settle()  # does nothing after a run, gives back the sandbox instead of one
        await self._maker.remove()

    # --- inside ---

    async def _create(self, part: str, small: SmallTask) -> Made:
        if self._sandbox is not None:
            try:
                return await self._maker.container(
                    part, small, in_sandbox(self._sandbox), self._sandbox
                )
            except RefusedError:
                if await self._alive(self._sandbox):
                    raise
                self._leave_sandbox()
                part = f"{part}-again"
        listed = self.assignment.task.networks
        alone = not (listed or self._private)
        own = await self._services.own_network.ready() if alone else ""
        joined = networks.joined_networks(listed, small.name, self._private, own)
        return await self._maker.container(part, small, joined)

    async def _run_part(self, part: str, small: SmallTask, made: Made) -> Exit:
        try:
            return await self._run_container(made, small)
        except StartError:
            if self._sandbox is None or await self._alive(self._sandbox):
                raise
        self._leave_sandbox()
        made = await self._create(f"{part}-anew", small)
        if part == MAIN:
            self._made = made
        return await self._run_container(made, small)

    async def _run_container(self, made: Made, small: SmallTask) -> Exit:
        container = made.container
        with self._running(container):
            self._ran.append(made)
            async with self._watched(made, main=small is self.assignment.task):
                try:
                    ended = await container.run(self.sink)
                except StartError as error:
                    raise StartError(f"image {small.image!r}: {error}") from None
        if ended.code == _KILLED and not ended.out_of_memory and self._services.cgroups:
            starved = self._services.cgroups.starved
            limit = self._maker.memory_limit
            ended.out_of_memory = await in_thread(starved, self._maker.name, limit)
        ended.memory_limit = self._maker.memory_limit
        return ended

    @contextlib.asynccontextmanager
    async def _watched(self, made: Made, *, main: bool) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if self._services.cgroups is None:
                await stack.enter_async_context(self._sampler.sampling(made.container.id))
            if main:
                await stack.enter_async_context(following(made.exchange.progress, self.sink))
            yield

    async def _sidecars(self) -> list[Beside]:
        task, services = self.assignment.task, self._services
        published = not services.shares_files
        made = []
        for index, sidecar in enumerate(task.sidecars):
            joined = networks.joined_networks(task.networks, sidecar.name, self._private)
            fitted = partial(adjust, sidecar, published=published)
            try:
                one = await self._maker.container(
                    f"sidecar-{index}", sidecar, joined, adjust=fitted
                )
            except TaskError as error:
                raise TaskError(f"sidecar {sidecar.name or index + 1!r}: {error}") from None
            made.append(
                Beside(services.engine, sidecar, one.container, self._private, published, self.sink)
            )
        return made

    async def _alive(self, sandbox: Sandbox) -> bool:
        try:
            found = await self._services.engine.watch(
                self._services.engine.api.inspect_container, sandbox.id
            )
        except APIError:
            return False
        return bool(found["State"]["Running"])

    def _leave_sandbox(self) -> None:
        if self._sandbox is not None and self._services.sandboxes is not None:
            self._services.sandboxes.discard(self._sandbox)
        self._sandbox = None

    async def _usage(self) -> RunUsage:
        wall, used = await in_thread(self._counted)
        seen = used or self._sampler.used()
        return RunUsage(
            wall_seconds=wall,
            cpu_seconds=seen.cpu_seconds,
            peak_memory_bytes=seen.peak_memory_bytes,
            sampled=used is None,
        )

    def _counted(self) -> tuple[float, Used | None]:
        """Return how many seconds its containers ran, and what its cgroup counted."""
        wall = sum(made.container.seconds(made.exchange.script_read()) for made in self._ran)
        cgroups = self._services.cgroups
        return wall, cgroups.read(self._maker.name) if cgroups else None


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
    """A sidecar and its container. `network`: the one on which the worker may reach it; `sink`: the run's."""

    engine: Engine
    sidecar: Sidecar
    container: Container
    network: str
    published: bool
    sink: Sink

    async def begin(self) -> None:
        """Start it and wait until it is ready. Raises TaskError, RunLostError."""
        try:
            await self.container.start()
        except StartError as error:
            raise StartError(
                f"sidecar {self.sidecar.name!r}: image {self.sidecar.image!r}: {error}"
            ) from None
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
            found = await self.engine.watch(self.engine.api.inspect_container, self.container.id)
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
            tail.add(await self.engine.watch(self.engine.api.logs, self.container.id))
        said = f"sidecar {self.sidecar.name!r}: {what}"
        return TaskError(await failure(said, tail, self.sink))


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
