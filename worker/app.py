"""The worker's composition root: builds the parts, and starts and stops them in the right order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from shared.broker import from_config
from shared.broker.port import Broker
from shared.config import Config
from shared.encryption import vault_of
from shared.ids import node_id
from shared.model.messages import MessageCodec
from shared.signals import StopSignal
from shared.version import version
from worker.daemon import Daemon, Settings
from worker.health import HealthServer
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
        settings = Settings(
            node_id=self.node_id,
            name=config.worker.name,
            version=version(),
            queues=config.worker.queues,
            beat=config.engine.beat,
            drain_timeout=config.worker.drain_timeout,
            folder=Path(config.worker.data) / "spool",
            spool_limit=config.worker.log_spool,
        )
        self.runtime: Runtime = make_runtime(config, self.node_id)
        self.daemon = Daemon(broker, self.runtime, codec, settings)

    async def open_runtime(self) -> None:
        """Find the engine. Raises `RuntimeUnavailable` where none answers."""
        await self.runtime.start()
        self._stack.push_async_callback(self.runtime.close)

    async def start(self) -> None:
        """Start the parts, each after what it needs, on a runtime that is open."""
        stack = self._stack
        health = HealthServer(self._config.worker.address, version(), self.daemon.health)
        self.daemon.beats.port = await health.start()
        stack.push_async_callback(health.close)
        stack.push_async_callback(self.daemon.close)
        await self.daemon.start()
        log.info(
            "worker started",
            queues=dict(self._config.worker.queues),
            health_port=self.daemon.beats.port,
        )

    async def drain(self) -> None:
        """Let what runs end, or hand it back, and wait until that is stored."""
        await self.daemon.drain()

    async def close(self) -> None:
        """Stop the parts in reverse order."""
        await self._stack.aclose()


def make_runtime(config: Config, node: str) -> Runtime:
    """Return the configured runtime."""
    return (
        ShellRuntime(config, node)
        if config.runtime.type == "shell"
        else DockerRuntime(config, node)
    )


async def run_worker(config: Config) -> int:
    """Run a worker until it is asked to stop; return its exit code."""
    stop = StopSignal()
    codec = MessageCodec(vault_of(config.encryption.key, config.encryption.old_keys))
    async with AsyncExitStack() as stack:
        broker = from_config.rabbitmq(config, f"worker {config.worker.name}")
        stack.push_async_callback(broker.close)
        worker = Worker(config, broker, codec)
        stack.push_async_callback(worker.close)
        for begin in (broker.start, worker.open_runtime, worker.start):
            if not await stop.lets(begin()):
                return 0
        await stop.wait()
        await worker.drain()
    return 0
