"""One run of a task in containers."""

from __future__ import annotations

import asyncio
import contextlib

from docker.errors import APIError, ImageNotFound

from shared.model.documents import Usage
from shared.model.language import SmallTask
from worker.runtime.docker import labels, mounts, networks, spec
from worker.runtime.docker.container import Container
from worker.runtime.docker.engine import EngineGoneError, explain
from worker.runtime.docker.exchanges import Exchange
from worker.runtime.docker.services import Services
from worker.runtime.environment import host_names, own_names
from worker.runtime.faults import TaskError
from worker.runtime.port import Assignment, Sink
from worker.runtime.stages import Exit, StagedRun, following

MAIN = -1


class DockerRun(StagedRun):
    """The port's Run in containers."""

    def __init__(self, assignment: Assignment, sink: Sink, services: Services) -> None:
        super().__init__(
            assignment,
            sink,
            timeout=services.worker.limits.timeout,
            stop_timeout=services.stop_timeout,
        )
        self._services = services
        self._engine = services.engine
        self.name = labels.fresh_name(assignment.task_id)
        self._folder = services.folders.new()
        self._containers: list[str] = []
        self._common: spec.Common
        self._exchange: Exchange
        self._container: Container
        self._ran: list[Container] = []

    # --- stages ---

    async def _prepare(self) -> None:
        with _refusals():
            task = self.assignment.task
            services = self._services
            networks.check(task, host_allowed=services.settings.host_network)
            mounted = mounts.translate(task.mounts, self.name, services.bind_rules)
            self._common = spec.Common(
                labels=labels.of(self.assignment, services.node_id),
                mounted=mounted,
                limits=spec.limits(task.limits, services.worker.limits, services.settings),
                cgroup_parent=services.cgroups.name(self.name) if services.cgroups else "",
            )
            await networks.look_up(task, self._engine)
            for volume, options in mounted.volumes.items():
                await self._engine.call(
                    self._engine.api.create_volume,
                    volume,
                    "local",
                    options,
                    dict(self._common.labels),
                )
            network = networks.joined(task.networks, task.name)
            self._exchange, self._container = await self._create(MAIN, task, network)

    async def _main(self) -> Exit:
        with _refusals():
            async with following(self._exchange.progress, self.sink):
                return await self._run_container(self._container)

    async def _stage(self, index: int, small: SmallTask) -> Exit:
        with _refusals():
            network = networks.joined(self.assignment.task.networks, small.name)
            _, container = await self._create(index, small, network)
            return await self._run_container(container)

    async def _result(self) -> str:
        with _refusals():
            return await self._exchange.output(self._services.worker.limits.output)

    async def _settle(self) -> Usage | None:
        if not self._ran:
            return None
        wall = sum(container.seconds() for container in self._ran)
        cgroups = self._services.cgroups
        used = await asyncio.to_thread(cgroups.read, self.name) if cgroups else None
        if used is None:
            return Usage(wall_seconds=wall, sampled=True)
        return Usage(
            wall_seconds=wall,
            cpu_seconds=used.cpu_seconds,
            peak_memory_bytes=used.peak_memory_bytes,
        )

    async def remove(self) -> None:
        """As the port says."""
        for container in self._containers:
            await self._quietly(self._engine.api.remove_container, container, v=True, force=True)
        if hasattr(self, "_common"):
            for volume in self._common.mounted.volumes:
                await self._quietly(self._engine.api.remove_volume, volume)
        await asyncio.to_thread(self._remove_traces)

    # --- inside ---

    async def _run_container(self, container: Container) -> Exit:
        with self._running(container):
            self._ran.append(container)
            return await container.run(self.sink)

    async def _create(
        self, index: int, small: SmallTask, network: spec.Network
    ) -> tuple[Exchange, Container]:
        exchange = self._services.exchange(self._folder / _part(index))
        body = spec.config(small, self._common, self._env(small), network, self._services.settings)
        await exchange.before(small, body)
        container_id = await self._create_pulling(small, body, f"{self.name}-{_part(index)}")
        await exchange.after(small, container_id, spec.workdir(small))
        await networks.join_more(self._engine, container_id, network)
        return exchange, Container(self._engine, container_id)

    async def _create_pulling(self, small: SmallTask, body: dict[str, object], name: str) -> str:
        create = self._engine.api.create_container_from_config
        self._containers.append(name)
        for _ in range(3):
            with contextlib.suppress(ImageNotFound):
                created = await self._engine.call(create, body, name)
                self._services.used.note_used(small.image)
                return str(created["Id"])
            await self._services.images.pull(small.image, small.registry, self._say)
        raise TaskError(f"image {small.image!r} is removed by somebody as soon as it is pulled")

    async def _say(self, text: str) -> None:
        await self.sink.write(f"{text}\n".encode())

    def _env(self, small: SmallTask) -> dict[str, str]:
        return {
            **host_names(self._services.worker.hostenv),
            **small.env,
            **own_names(self.assignment, mounts.TORK),
        }

    async def _quietly(self, function, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        with contextlib.suppress(APIError, EngineGoneError):
            await self._engine.call(function, *args, **kwargs)

    def _remove_traces(self) -> None:
        from worker.runtime import exchange

        exchange.remove(self._folder)
        if self._services.cgroups:
            self._services.cgroups.remove(self.name)


def _part(index: int) -> str:
    return "main" if index == MAIN else str(index)


@contextlib.contextmanager
def _refusals():  # type: ignore[no-untyped-def]
    try:
        yield
    except APIError as error:
        raise TaskError(f"the engine refuses: {explain(error)}") from None
