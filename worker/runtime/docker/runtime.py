"""Tasks in containers: the Docker adapter of the Runtime port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection
from functools import partial

import msgspec
import structlog
from docker.errors import APIError

from shared.config import Config
from shared.errors import RuntimeUnavailable
from shared.threads import in_thread
from worker.runtime.docker import shared_files_probe
from worker.runtime.docker.binds import BindRules, Listed, listed_source, unseen_source
from worker.runtime.docker.container_spec import security_options
from worker.runtime.docker.engine import Engine, EngineGoneError
from worker.runtime.docker.images import Images, UsedImages
from worker.runtime.docker.networks import OwnNetwork, Sandboxes
from worker.runtime.docker.resources import DockerContext
from worker.runtime.docker.run import DockerRun
from worker.runtime.docker.sweep import sweep
from worker.runtime.docker.usage import Cgroups, cgroups
from worker.runtime.port import Assignment, PathHangsError, Sink
from worker.runtime.task_folder import Folders

log = structlog.get_logger(__name__)


class DockerRuntime:
    """Runs tasks in containers of an engine that speaks Docker's API. `node_id`: the worker's."""

    def __init__(self, config: Config, node_id: str) -> None:
        settings = config.runtime.docker
        engine = Engine(settings.host, settings.config, podman=config.runtime.type == "podman")
        folders = Folders(config.worker.data, node_id)
        used = UsedImages(folders.top.parent / "images")
        self._bind = config.mounts.bind
        self._services = DockerContext(
            node_id=node_id,
            engine=engine,
            settings=settings,
            worker=config.worker,
            stop_timeout=config.runtime.stop_timeout,
            folders=folders,
            images=Images(engine, used),
            own_network=OwnNetwork(engine, wanted=settings.own_network),
            used=used,
            bind_rules=BindRules(False, (), None, folders.top, False),
        )

    async def start(self) -> None:
        """Connect to the engine, and find out whether it sees our files, and which cgroups and sandboxes it allows."""
        services = self._services
        self._harden()
        await in_thread(self._services.engine.credentials.check)
        await services.engine.connect()
        self._check_oci_runtime()
        remapped = "userns" in " ".join(services.engine.info.get("SecurityOptions") or [])
        await in_thread(services.folders.open, entered_by_others=remapped)
        services.shares_files = await shared_files_probe.shares_files(
            services.engine, services.folders
        )
        same_machine = services.shares_files and services.engine.address.socket is not None
        services.bind_rules = msgspec.structs.replace(
            services.bind_rules,
            allowed=self._bind.allowed,
            sources=tuple(await asyncio.gather(*map(self._listed, self._bind.sources))),
            engine_socket=services.engine.address.socket,
            same_machine=same_machine,
            opens=same_machine and self._bind.allowed and await self._mounts_what_we_open(),
        )
        if services.shares_files:
            services.cgroups = self._cgroups()
            services.sandboxes = self._sandboxes()

    async def _listed(self, source: str) -> Listed:
        """Return an entry of `mounts.bind.sources`; of one that does not answer, links are not followed."""
        what = f"mounts.bind.sources: {source}"
        try:
            return await self._services.paths.ask(source, what, partial(listed_source, source))
        except PathHangsError as error:
            log.warning("a path that may be mounted can't be looked at", reason=str(error))
            return unseen_source(source)

    def _harden(self) -> None:
        """Read the profile of system calls. Raises RuntimeUnavailable."""
        services = self._services
        try:
            services.security = security_options(services.settings)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"is not JSON: {error}"
            raise RuntimeUnavailable(
                f"runtime.docker.seccomp: {services.settings.seccomp}: {reason}"
            ) from None

    def _check_oci_runtime(self) -> None:
        wanted = self._services.settings.oci_runtime
        known = self._services.engine.info.get("Runtimes") or {}
        if wanted and known and wanted not in known:
            raise RuntimeUnavailable(
                f"runtime.docker.oci_runtime: the engine has no runtime {wanted!r}, only {', '.join(sorted(known))}"
            )

    async def _mounts_what_we_open(self) -> bool:
        services = self._services
        if services.engine.is_podman:  # it would look up the path again
            return False
        return await services.engine.call(
            shared_files_probe.mounts_what_we_open, services.engine, services.folders
        )

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
        if settings.oci_runtime or settings.userns:  # which need not share a network namespace
            return None
        slots = sum(services.worker.queues.values()) or os.cpu_count() or 1
        return Sandboxes(
            services.engine,
            services.node_id,
            services.own_network,
            size=slots,
            uses=settings.sandbox_uses,
        )

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
        images, unused = self._services.images, self._services.settings.image_ttl
        try:
            removed = await sweep(self._services, dead, mine)
            return removed + (await images.prune(unused) if unused else 0)
        except (EngineGoneError, APIError) as error:
            raise RuntimeUnavailable(f"the Docker engine: {error}") from None

    async def ping(self) -> None:
        """Return if the engine answers its ping and the disk takes files; else raise `RuntimeUnavailable`."""
        await self._services.engine.ping()
        await in_thread(self._services.folders.check)

    async def close(self) -> None:
        """Remove sandboxes, cgroups and the node's folder, and disconnect."""
        services = self._services
        if services.sandboxes is not None:
            await services.sandboxes.close()
        if services.cgroups is not None:
            await in_thread(services.cgroups.remove_all)
        await in_thread(services.folders.close)
        await services.paths.close()
        await self._services.engine.close()
