"""Tasks in containers: the Docker adapter of the Runtime port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection

import msgspec

from shared.config import Config
from worker.runtime.docker import shared_files_probe
from worker.runtime.docker.binds import BindRules
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.images import Images, UsedImages
from worker.runtime.docker.networks import Sandboxes
from worker.runtime.docker.resources import DockerContext
from worker.runtime.docker.run import DockerRun
from worker.runtime.docker.sweep import sweep
from worker.runtime.docker.usage import Cgroups, cgroups
from worker.runtime.port import Assignment, Sink
from worker.runtime.task_folder import Folders


class DockerRuntime:
    """Runs tasks in containers of an engine that speaks Docker's API. `node_id`: the worker's."""

    def __init__(self, config: Config, node_id: str) -> None:
        settings = config.runtime.docker
        engine = Engine(settings.host, settings.config)
        folders = Folders(config.worker.data, node_id)
        used = UsedImages(folders.top.parent / "images")
        bind = config.mounts.bind
        self._services = DockerContext(
            node_id=node_id,
            engine=engine,
            settings=settings,
            worker=config.worker,
            stop_timeout=config.runtime.stop_timeout,
            folders=folders,
            images=Images(engine, used),
            used=used,
            bind_rules=BindRules(bind.allowed, bind.sources, None, folders.top, False),
        )

    async def start(self) -> None:
        """Connect to the engine, and find out whether it sees our files, and which cgroups and sandboxes it allows."""
        services = self._services
        await services.engine.connect()
        await asyncio.to_thread(services.folders.open)
        services.shares_files = await shared_files_probe.shares_files(
            services.engine, services.folders
        )
        services.bind_rules = msgspec.structs.replace(
            services.bind_rules,
            engine_socket=services.engine.address.socket,
            same_machine=services.shares_files and services.engine.address.socket is not None,
        )
        if services.shares_files:
            services.cgroups = self._cgroups()
            services.sandboxes = self._sandboxes()

    def _cgroups(self) -> Cgroups | None:
        info, settings = self._services.engine.info, self._services.settings
        if (
            self._services.engine.is_podman
        ):  # its monitor runs, and is counted, beside the container
            return None
        parent = settings.parent_cgroup or "haulier"
        version, driver = str(info.get("CgroupVersion", "1")), str(info.get("CgroupDriver", ""))
        return cgroups(version, driver, f"{parent}/{self._services.node_id}")

    def _sandboxes(self) -> Sandboxes | None:
        services, settings = self._services, self._services.settings
        # With more rights than usual a task could change the network that the next one gets.
        if not settings.warm_sandboxes or settings.privileged or settings.cap_add:
            return None
        slots = sum(services.worker.queues.values()) or os.cpu_count() or 1
        return Sandboxes(services.engine, services.node_id, size=slots, uses=settings.sandbox_uses)

    def warm_up(self) -> None:
        """Make a network sandbox for each slot, where sandboxes are kept."""
        if self._services.sandboxes is not None:
            self._services.sandboxes.open()

    async def prepare(self, assignment: Assignment, sink: Sink) -> DockerRun:
        """Pull the image and create the container."""
        run = DockerRun(assignment, sink, self._services)
        try:
            await run.prepare()
        except BaseException:
            await asyncio.shield(run.remove())
            raise
        return run

    async def sweep(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], mine: str
    ) -> int:
        """Remove what dead nodes left, and the images that have not been used for `image_ttl`."""
        removed = await sweep(self._services, dead, mine)
        if self._services.settings.image_ttl:
            removed += await self._services.images.prune(self._services.settings.image_ttl)
        return removed

    async def ping(self) -> None:
        """Return if the engine answers its ping; else raise `RuntimeUnavailable`."""
        await self._services.engine.ping()

    async def close(self) -> None:
        """Remove sandboxes, cgroups and the node's folder, and disconnect."""
        services = self._services
        if services.sandboxes is not None:
            await services.sandboxes.close()
        if services.cgroups is not None:
            await asyncio.to_thread(services.cgroups.remove_all)
        await asyncio.to_thread(services.folders.close)
        await self._services.engine.close()
