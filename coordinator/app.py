"""The coordinator's composition root: builds the parts, and starts and stops them in the right order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from coordinator.api.app import ApiRunner, create_app
from coordinator.api.metrics import NotedFigures
from coordinator.commands import JobCommands
from coordinator.consumers import QueueConsumers
from coordinator.due.coordinator_beats import CoordinatorBeats
from coordinator.due.due_work import DueWork
from coordinator.due.progress_rollup import ProgressRollup
from coordinator.due.pulse_probes import PulseProbes
from coordinator.due.retention import RetentionTimer
from coordinator.due.schedules import ScheduleTimer
from coordinator.due.sweeper import Sweeper
from coordinator.due.webhook_addresses import WebhookAddresses
from coordinator.due.webhook_sender import WebhookSender
from coordinator.effects import FlowDriver
from coordinator.effects.job_metrics import Measures
from coordinator.engine import pulse
from coordinator.engine.flow import Bounds
from coordinator.extensions import CoordinatorExtensions, ExtendedCommands
from coordinator.store.port import Store
from shared.broker import from_config
from shared.broker.port import Broker
from shared.config import Config, parse_address
from shared.encryption import Vault, vault_of
from shared.extensions import load_extension
from shared.http_server import listen
from shared.ids import node_id
from shared.metrics import BROKER_OPERATIONS, Latencies, watch_certificates
from shared.model.documents import MICROS_PER_SECOND
from shared.model.messages import MessageCodec
from shared.signals import StopSignal
from shared.tls import server_context, shown_certificates
from shared.version import version

log = structlog.get_logger(__name__)

STORE_OPERATIONS = (
    "ping", "get", "get_many", "insert", "insert_many", "change", "change_many", "change_first", "delete", "find",
    "count", "group_count", "overdue", "search_jobs", "append_log", "log_page", "vars",
)  # fmt: skip
"""What is measured of the datastore."""


class Coordinator:
    """A whole coordinator. `start` returns once it serves; `close` finishes what it is handling and stops."""

    def __init__(self, config: Config, store: Store, broker: Broker, codec: MessageCodec) -> None:
        self._config = config
        measures = Measures()
        self._store = Latencies("store", measures.registry).watch(store, STORE_OPERATIONS)
        self._broker = Latencies("broker", measures.registry).watch(broker, BROKER_OPERATIONS)
        self._codec = codec
        self._stack = AsyncExitStack()
        self.address = ""
        self.node_id = node_id()
        self.driver = FlowDriver(self._store, self._broker, bounds_of(config), codec, measures)

    async def start(self) -> None:
        """Start the parts, each after what it needs."""
        config, driver = self._config, self.driver
        extensions = self._extended()
        commands = self._commands(extensions)
        probes = PulseProbes(driver, self._broker, self._codec, self.node_id)
        beating = CoordinatorBeats(
            driver, self.node_id, config.coordinator.name, version(), None, config.engine.beat
        )
        await self._begin(driver.start, driver.close)
        for part in (
            ScheduleTimer(driver),
            ProgressRollup(driver),
            WebhookSender(
                self._store,
                config.coordinator.webhooks.attempts,
                config.coordinator.webhooks.timeout,
                WebhookAddresses(config, self._store.hosts),
            ),
            RetentionTimer(
                driver,
                config.datastore.retention.jobs,
                config.datastore.retention.logs,
                config.datastore.retention.audit,
            ),
            DueWork(driver),
            Sweeper(driver, self._broker, config.engine.sweep),
            probes,
        ):
            part.start()
            self._stack.push_async_callback(part.close)
        intake = QueueConsumers(driver, self._broker, self._codec, probes, prefetch_of(config))
        await self._begin(intake.start, intake.close)
        self._broker.on_connected(self._connected)
        beating.port = await self._serve(commands, extensions)
        beating.start()
        self._stack.push_async_callback(beating.close)
        log.info("coordinator started", address=self.address)

    async def _begin(
        self, start: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]
    ) -> None:
        self._stack.push_async_callback(close)
        await start()

    def _connected(self, first: bool) -> None:
        if not first:
            flow = pulse.link_was_lost(self.node_id)
            self.driver.soon(self.driver.carry_out(flow))

    def _extended(self) -> CoordinatorExtensions:
        """Return this coordinator's extensions, told of what happens if they want to know."""
        registry = self.driver.measures.registry
        extensions = CoordinatorExtensions(self._config, self._store, registry)
        if extensions.observing:
            self.driver.events.observe = extensions.changed
            self.driver.events.on_log = extensions.logged
        extensions.start()
        self._stack.push_async_callback(extensions.close)
        return extensions

    def _commands(self, extensions: CoordinatorExtensions) -> JobCommands:
        if not extensions.submitting:
            return JobCommands(self.driver, self._broker, self._codec)
        commands = ExtendedCommands(self.driver, self._broker, self._codec)
        commands.extensions = extensions
        return commands

    async def _serve(self, commands: JobCommands, extensions: CoordinatorExtensions) -> int:
        registry = self.driver.measures.registry
        registry.register(NotedFigures(self.driver.counts))
        watch_certificates(registry, shown_certificates(self._config, "coordinator"))
        app = create_app(
            store=self._store,
            broker=self._broker,
            commands=commands,
            config=self._config,
            version=version(),
            registry=registry,
            more_routes=extensions.routes,
            more_middlewares=extensions.middlewares,
        )
        runner = ApiRunner(app)
        await self._begin(runner.setup, runner.cleanup)
        host, port = parse_address(self._config.coordinator.address)
        tls = server_context(self._config.coordinator.tls)
        bound = await listen(runner, host, port, tls)
        self.address = f"{'http' if tls is None else 'https'}://{host}:{bound}"
        return bound

    async def close(self) -> None:
        """Stop the parts in reverse order."""
        await self._stack.aclose()


def bounds_of(config: Config) -> Bounds:
    """Return the engine's bounds as configured."""
    engine = config.engine
    return Bounds(
        lease=int(engine.lease * MICROS_PER_SECOND),
        reconnect_cap=int(engine.reconnect_cap * MICROS_PER_SECOND),
        redeliveries=engine.redeliveries,
        job_window=engine.job_window,
        expression_steps=engine.expression_steps,
        expression_bytes=engine.expression_bytes,
        redaction_keys=config.redaction.keys,
        output_bytes=config.worker.limits.output,
    )


def prefetch_of(config: Config) -> dict[str, int]:
    """Return how many messages of each coordinator queue are handled side by side."""
    queues = config.coordinator.queues
    return {name: getattr(queues, name) for name in queues.__struct_fields__}


def make_store(config: Config, vault: Vault | None) -> Store:
    """Return the configured datastore."""
    extension: Store | None = load_extension("datastore", config, vault=vault)
    if extension is not None:
        return extension
    if config.datastore.type == "mongodb":
        from coordinator.store.mongodb import MongoStore

        mongodb = config.datastore.mongodb
        return MongoStore(mongodb.url, mongodb.database, vault, mongodb.tls)
    from coordinator.store.sqlite import SqliteStore

    return SqliteStore(Path(config.datastore.sqlite.path), vault)


async def run_coordinator(config: Config) -> int:
    """Run a coordinator until it is asked to stop; return its exit code."""
    stop = StopSignal()
    vault = vault_of(config.encryption.key, config.encryption.old_keys)
    async with AsyncExitStack() as stack:
        store = make_store(config, vault)
        stack.push_async_callback(store.close)
        broker = from_config.remote(config, f"coordinator {config.coordinator.name}")
        stack.push_async_callback(broker.close)
        for begin in (store.start, broker.start):
            if not await stop.lets(begin()):
                return 0
        coordinator = Coordinator(config, store, broker, MessageCodec(vault))
        stack.push_async_callback(coordinator.close)
        if await stop.lets(coordinator.start()):
            await stop.wait()
    return 0
