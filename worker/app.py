"""The worker's composition root: builds the parts, and starts and stops them in the right order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from shared.broker import from_config
from shared.broker.port import Broker
from shared.config import Config
from shared.encryption import vault_of
from shared.extensions import Guard, load_extension, load_extensions
from shared.ids import node_id
from shared.metrics import watch_certificates
from shared.model.messages import MessageCodec
from shared.signals import StopSignal
from shared.supervision import beside, done_first
from shared.tls import shown_certificates
from shared.version import version
from worker.daemon import Daemon, Settings
from worker.extensions import ExtendedRuntime
from worker.health import HealthServer
from worker.meters import WorkerMeters
from worker.process_folder import ProcessFolder
from worker.runtime.docker import DockerRuntime
from worker.runtime.port import Runtime
from worker.runtime.shell import ShellRuntime

log = structlog.get_logger(__name__)


class Worker:
    """A whole worker. `start` returns once it takes tasks; `drain` and `close` end it."""

    def __init__(self, config: Config, broker: Broker, codec: MessageCodec) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self.node_id = node_id()
        data = Path(config.worker.data)
        settings = Settings(
            node_id=self.node_id,
            name=config.worker.name,
            version=version(),
            queues=slots_of(config),
            once=config.worker.once,
            beat=config.engine.beat,
            drain_timeout=config.worker.drain_timeout,
            spool=data / "spool",
            spool_limit=config.worker.log_spool,
            log_limit=config.worker.limits.log,
        )
        meters = WorkerMeters(version())
        watch_certificates(meters.registry, shown_certificates(config, "worker"))
        self.runtime = extended(make_runtime(config, self.node_id), config, meters)
        folder = ProcessFolder(data, self.node_id, codec)
        self.daemon = Daemon(broker, self.runtime, codec, settings, folder, meters)

    async def open_runtime(self) -> None:
        """Find the engine. Raises `RuntimeUnavailable` where none answers."""
        await self.runtime.start()
        self._stack.push_async_callback(self.runtime.close)
        self._stack.push_async_callback(self.daemon.close)

    async def start(self) -> None:
        """Start the parts, each after what it needs, on a runtime that is open."""
        stack = self._stack
        health = HealthServer(
            self._config.worker.address,
            version(),
            self.daemon.health,
            self.daemon.meters.registry,
        )
        self.daemon.beats.port = await health.start()
        stack.push_async_callback(health.close)
        await self.daemon.start()
        log.info(
            "worker started",
            queues=slots_of(self._config),
            health_port=self.daemon.beats.port,
        )

    async def drain(self) -> None:
        """Let what runs end, or hand it back, and wait until that is stored."""
        await self.daemon.drain()

    async def close(self) -> None:
        """Stop the parts in reverse order."""
        await self._stack.aclose()


def slots_of(config: Config) -> dict[str, int]:
    """Return how many slots each queue has."""
    queues = config.worker.queues
    return {name: min(count, 1) if config.worker.once else count for name, count in queues.items()}


def make_runtime(config: Config, node: str) -> Runtime:
    """Return the configured runtime."""
    extension: Runtime | None = load_extension("runtime", config, node_id=node)
    if extension is not None:
        return extension
    return (
        ShellRuntime(config, node)
        if config.runtime.type == "shell"
        else DockerRuntime(config, node)
    )


def extended(runtime: Runtime, config: Config, meters: WorkerMeters) -> Runtime:
    """Return a runtime whose tasks pass the extensions first, where there are any."""
    named = config.extensions
    middlewares = load_extensions("middleware.task", config, named.middleware.task)
    mounters = load_extensions("mounters", config, named.mounters)
    if not middlewares and not mounters:
        return runtime
    return ExtendedRuntime(runtime, Guard(named.timeout, meters.registry), middlewares, mounters)


async def run_worker(config: Config) -> int:
    """Run a worker until it is asked to stop; return its exit code."""
    stop = StopSignal()
    codec = MessageCodec(vault_of(config.encryption.key, config.encryption.old_keys))
    async with AsyncExitStack() as stack:
        broker = from_config.remote(config, f"worker {config.worker.name}", config.worker.queues)
        stack.push_async_callback(broker.close)
        worker = Worker(config, broker, codec)
        stack.push_async_callback(worker.close)
        for begin in (broker.start, worker.open_runtime, worker.start):
            if not await stop.lets(begin()):
                return 0
        async with beside(stop.wait(), "stop") as stopping:
            if await done_first(stopping, worker.daemon.only_task_over()):
                await stopping
        await worker.drain()
    return 0
