"""One run of a task in containers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from docker.errors import APIError

from shared.model.documents import RunUsage
from shared.model.language import SmallTask
from worker.runtime.docker import networks, sidecars
from worker.runtime.docker.container import StartError
from worker.runtime.docker.engine import EngineGoneError
from worker.runtime.docker.network_sandboxes import Sandbox
from worker.runtime.docker.resources import DockerContext, Made, Maker, engine_refusals
from worker.runtime.docker.sidecars import Beside
from worker.runtime.docker.usage import Sampler
from worker.runtime.port import Assignment, Sink
from worker.runtime.stages import Exit, StagedRun, following

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
        )
        self._services = services
        self._maker = Maker(assignment, sink, services)
        self._sampler = Sampler(services.engine)
        self._sandbox: Sandbox | None = None
        self._private = ""
        self._made: Made | None = None
        self._ran: list[Made] = []

    # --- stages ---

    async def _prepare(self) -> None:
        try:
            await self._make()
        except EngineGoneError:
            await self._services.engine.back()  # or it would be lost again at once
            raise

    async def _make(self) -> None:
        task, services = self.assignment.task, self._services
        with engine_refusals():
            networks.check_networks(task, host_allowed=services.settings.host_network)
            await networks.look_up(task, services.engine)
            common = await self._maker.common()
            if task.sidecars:
                self._private = await self._maker.network()
            elif not task.networks and not common.mounted.targets & _SANDBOX_FILES:
                self._sandbox = services.sandboxes.take() if services.sandboxes else None
            self._made = await self._create(MAIN, task)

    async def _stage(self, index: int, small: SmallTask) -> Exit:
        with engine_refusals():
            return await self._run_part(str(index), small, await self._create(str(index), small))

    async def _main(self) -> Exit:
        assert self._made is not None
        task = self.assignment.task
        first = sidecars.first_to_end(task.sidecars)
        now = asyncio.get_running_loop().time
        with engine_refusals():
            beside = await self._sidecars()
            began = now()
            async with sidecars.run_beside(beside):
                main = self._run_part(MAIN, task, self._made)
                if first is None:
                    return await main
                left = max(0.001, began + first.seconds - now())
                return await self._within(left, main, first.late)

    async def _result(self) -> str:
        assert self._made is not None
        with engine_refusals():
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
        joined = networks.joined_networks(self.assignment.task.networks, small.name, self._private)
        if self._sandbox is not None:
            try:
                return await self._maker.container(part, small, joined, self._sandbox)
            except APIError:
                if await self._alive(self._sandbox):
                    raise
                self._leave_sandbox()
                part = f"{part}-again"
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
                ended = await container.run(self.sink)
        if ended.code == _KILLED and not ended.out_of_memory and self._services.cgroups:
            starved = self._services.cgroups.starved
            limit = self._maker.memory_limit
            ended.out_of_memory = await asyncio.to_thread(starved, self._maker.name, limit)
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
            adjust = partial(sidecars.adjust, sidecar, published=published)
            one = await self._maker.container(f"sidecar-{index}", sidecar, joined, adjust=adjust)
            made.append(Beside(services.engine, sidecar, one.container, self._private, published))
        return made

    async def _alive(self, sandbox: Sandbox) -> bool:
        try:
            found = await self._services.engine.call(
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
        wall = sum(made.container.seconds(made.exchange.script_read()) for made in self._ran)
        cgroups = self._services.cgroups
        used = await asyncio.to_thread(cgroups.read, self._maker.name) if cgroups else None
        seen = used or self._sampler.used()
        return RunUsage(
            wall_seconds=wall,
            cpu_seconds=seen.cpu_seconds,
            peak_memory_bytes=seen.peak_memory_bytes,
            sampled=used is None,
        )
