"""What all runs share, and what each creates in the engine and removes again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from shared.config.schema import Docker, WorkerSettings
from shared.model.language import Mount, SmallTask, TaskDefinition
from shared.threads import in_thread, in_thread_of
from worker.runtime import task_folder as host
from worker.runtime.docker import container_spec, labels, networks
from worker.runtime.docker.binds import BindRules
from worker.runtime.docker.container import Container
from worker.runtime.docker.container_spec import host_path
from worker.runtime.docker.engine import Engine, EngineGoneError, blames_host, explain
from worker.runtime.docker.images import Images, UsedImages, allowed_image
from worker.runtime.docker.networks import OwnNetwork, Sandbox, Sandboxes
from worker.runtime.docker.task_files import ArchivedFiles, SharedFolderFiles, TaskFiles
from worker.runtime.docker.usage import Cgroups
from worker.runtime.host_paths import HostPaths
from worker.runtime.port import MACHINE, Assignment, RunLostError, Sink, TaskError, file_error
from worker.runtime.stages import host_names, own_names
from worker.runtime.task_folder import Folders


class DockerContext(msgspec.Struct):
    """The engine, the settings, and what was found out about them at the start."""

    node_id: str
    engine: Engine
    settings: Docker
    worker: WorkerSettings
    stop_timeout: float
    folders: Folders
    images: Images
    own_network: OwnNetwork
    used: UsedImages
    bind_rules: BindRules
    security: tuple[str, ...] = ()
    """The engine's security options for tasks' containers."""
    cgroups: Cgroups | None = None
    sandboxes: Sandboxes | None = None
    shares_files: bool = False
    """Whether the engine sees the worker's files under the same paths."""
    paths: HostPaths = msgspec.field(default_factory=HostPaths)
    left: dict[Callable[[], Any], None] = {}
    """Removals that failed, in order: the sweep tries them again."""

    def exchange(self, folder: Path) -> TaskFiles:
        """Return the way files go into and out of one container; `folder` is not yet made."""
        if self.shares_files:
            return SharedFolderFiles(self.engine, folder)
        return ArchivedFiles(self.engine, readonly_root=self.settings.readonly_root)


class RefusedError(TaskError):
    """The engine does not make what a task wants."""


_TRIES = 3
Adjust = Callable[[dict[str, Any]], None]


class Made(msgspec.Struct, frozen=True):
    """A created container, and the way files go into and out of it."""

    container: Container
    exchange: TaskFiles


class Maker:
    """Makes the containers, volumes and networks of one run, and remembers what there is to remove."""

    def __init__(self, assignment: Assignment, sink: Sink, services: DockerContext) -> None:
        self.name = labels.fresh_name(assignment.task_id)
        self._assignment = assignment
        self._sink = sink
        self._services = services
        self._engine = services.engine
        self._folder = services.folders.new()
        self._labels = labels.of(assignment, services.node_id)
        self._common: container_spec.Common | None = None
        self._containers: list[str] = []
        self._networks: list[str] = []
        self._volumes: list[str] = []
        self._mounted = container_spec.Mounted()

    async def common(self) -> container_spec.Common:
        """Make what all containers of the run share. Raises TaskError, RunLostError."""
        task, services = self._assignment.task, self._services
        mounted = self._mounted
        for path, numbered in groupby(enumerate(task.mounts), lambda each: host_path(each[1])):
            await self._mount(path, list(numbered))
        common = container_spec.Common(
            labels=self._labels,
            mounted=mounted,
            limits=container_spec.container_limits(
                task.limits, services.worker.limits, services.settings
            ),
            cgroup_parent=services.cgroups.name(self.name) if services.cgroups else "",
            security=services.security,
        )
        for volume, options in mounted.volumes.items():
            self._volumes.append(volume)
            create = self._engine.api.create_volume
            await self._engine.call(create, volume, "local", options, self._labels)
        self._common = common
        return common

    @property
    def folder(self) -> Path:
        """The run's own, in which the containers' folders are."""
        return self._folder

    @property
    def memory_limit(self) -> int:
        """Bytes that each container may use; 0 for no limit."""
        return int(self._common.limits.get("Memory", 0)) if self._common else 0

    async def network(self) -> str:
        """Make the run's private network; returns its name. Raises APIError."""
        self._networks.append(self.name)
        create = self._engine.api.create_network
        await self._engine.call(create, self.name, driver="bridge", labels=self._labels)
        return self.name

    async def container(
        self,
        part: str,
        small: SmallTask,
        network: container_spec.Network,
        sandbox: Sandbox | None = None,
        adjust: Adjust | None = None,
    ) -> Made:
        """Create a container of the run, in `sandbox` where one is given. `part` is unique in it.

        Raises TaskError, RunLostError; RefusedError for what the engine itself refuses.
        """
        assert self._common is not None
        if allowed := self._services.settings.images:
            image = allowed_image(small.image, allowed)
            small = msgspec.structs.replace(small, image=image)
        folder = self._folder / part
        exchange = self._services.exchange(folder)
        env = self._env(small)
        if sandbox is not None:
            env = {"HOSTNAME": self._assignment.task_id[:12], **env}
        body = container_spec.container_config(
            small, self._common, env, network, self._services.settings
        )
        if adjust is not None:
            adjust(body)
        if sandbox is not None:
            body["HostConfig"]["Mounts"] += await in_thread(
                _own_copies, sandbox, self._folder / f"{part}-net"
            )
        await exchange.before(small, body)
        with engine_refusals(self._assignment.task, small.image):
            container_id = await self._create(small, body, f"{self.name}-{part}")
            await exchange.after(small, container_id, container_spec.workdir(small))
            await networks.join_more(self._engine, container_id, network)
        return Made(Container(self._engine, container_id), exchange)

    async def remove(self) -> None:
        """Remove all of it, however long the engine hangs; what it refuses is left to the sweep. Never raises."""
        api = self._engine.api
        for name in self._containers:
            await self._remove_or_leave(api.remove_container, name, v=True, force=True)
        for name in self._networks:
            await self._remove_or_leave(api.remove_network, name)
        for name in self._volumes:
            await self._remove_or_leave(api.remove_volume, name)
        await in_thread(self._remove_traces)
        await in_thread_of(host.REMOVING, host.remove_folder, self._folder)

    # --- inside ---

    async def _create(self, small: SmallTask, body: dict[str, Any], name: str) -> str:
        self._containers.append(name)
        create = self._engine.api.create_container_from_config
        if await self._pulled_anew(small):
            await self._services.images.pull(small.image, small.registry, self._say, anew=True)
        for _ in range(_TRIES):
            with contextlib.suppress(ImageNotFound):
                created = await self._engine.call(create, body, name)
                await in_thread(self._services.used.note_used, small.image)
                return str(created["Id"])
            await self._services.images.pull(small.image, small.registry, self._say)
        raise TaskError(
            f"image {small.image!r} keeps being removed by another program after it is pulled"
        )

    async def _pulled_anew(self, small: SmallTask) -> bool:
        """Return whether an image that is there is to be pulled all the same, to see whether the task may have it."""
        policy = self._services.settings.pull
        if policy != "private":
            return policy == "always"
        used = self._services.used
        return small.registry is not None or await in_thread(used.is_private, small.image)

    async def _say(self, text: str) -> None:
        await self._sink.write(f"{text}\n".encode())

    def _env(self, small: SmallTask) -> dict[str, str]:
        return {
            **host_names(self._services.worker.hostenv, self._assignment.trace),
            **small.env,
            **own_names(self._assignment, container_spec.TORK),
        }

    async def _remove_or_leave(self, work: Callable[..., Any], name: str, **options: bool) -> None:
        removal = partial(work, name, **options)
        try:
            await self._engine.call_until_answered(removal)
        except NotFound:
            pass
        except (APIError, EngineGoneError):
            self._services.left[removal] = None

    async def _mount(self, path: str, numbered: list[tuple[int, Mount]]) -> None:
        """Find out what mounts of the task are that name this path of the host. Raises TaskError, RunLostError."""
        if path:
            what = f"mounts[{numbered[0][0]}]: the source {path}"
            add = partial(self._add_mounts, numbered)
            await self._services.paths.ask(path, what, add, self._forget_mounts)
        else:
            await in_thread(self._add_mounts, numbered)

    def _add_mounts(self, numbered: list[tuple[int, Mount]]) -> None:
        rules = self._services.bind_rules
        container_spec.add_mounts(self._mounted, numbered, self.name, rules)
        self._link_files(numbered[0][0])

    def _forget_mounts(self) -> None:
        """Undo what was found after the run had been removed."""
        self._mounted.close()
        host.remove_folder(self._folder)

    def _link_files(self, first: int) -> None:
        """Give opened files a name in the run's own folder, from where they can be mounted. Raises TaskError."""
        files, self._mounted.files = self._mounted.files, []
        for index, (mount, source) in enumerate(files, first):
            name = self._folder / f"bind-{index}"
            opened = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                os.link(str(source.descriptor), name, src_dir_fd=opened)
            except OSError as error:
                if error.errno in MACHINE:
                    raise file_error(error, f"the file {source.path} can't be mounted") from None
                raise TaskError(
                    f"the file {source.path} can't be mounted safely ({error.strerror}): mount its folder, or list the "
                    "file itself in the worker's mounts.bind.sources"
                ) from None
            finally:
                os.close(opened)
            mount["Source"] = str(name)

    def _remove_traces(self) -> None:
        self._mounted.close()
        if self._services.cgroups:
            self._services.cgroups.remove(self.name)


def _own_copies(sandbox: Sandbox, folder: Path) -> list[dict[str, Any]]:
    """Give a task files of its own where it would share the sandbox's, and could spoil them.

    Raises TaskError, RunLostError.
    """
    binds = []
    try:
        folder.mkdir(parents=True)
        for target, contents in sandbox.files().items():
            source = folder / Path(target).name
            host.write_file(source, contents, 0o644)
            binds.append({"Type": "bind", "Source": str(source), "Target": target})
    except OSError as error:
        raise file_error(error, f"cannot make {error.filename or folder}") from None
    return binds


@contextlib.contextmanager
def engine_refusals(task: TaskDefinition, image: str = "") -> Iterator[None]:
    """Turn the engine's refusals into faults of the task's, or the host's; `image`: the one that they are about."""
    what = f"image {image!r}: " if image else ""
    try:
        yield
    except APIError as error:
        said = f"{what}the engine refuses: {explain(error)}"
        own = (image, task.workdir, list(task.files), task.mounts, task.networks)
        raise (RunLostError if blames_host(error, own) else RefusedError)(said) from None
    except DockerException as error:
        raise TaskError(f"{what}{error}") from None
