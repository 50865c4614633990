"""The standalone process: a coordinator and a worker with embedded broker and datastore."""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from coordinator.app import Coordinator
from coordinator.engine import repairs
from coordinator.store.port import Store
from coordinator.store.sqlite import SqliteStore
from shared.broker import from_config
from shared.config import Config
from shared.encryption import vault_of
from shared.extensions import load_extension
from shared.model.documents import NodeDocument
from shared.model.messages import MessageCodec
from shared.model.states import NodeKind
from shared.signals import StopSignal
from shared.version import version
from worker.app import Worker

log = structlog.get_logger(__name__)

LEFTOVERS_WITHIN = 60.0
"""Seconds that the leases of killed runs wait for the removal of their containers, which may still run."""


async def run_standalone(config: Config) -> int:
    """Run coordinator and worker in this process until it is asked to stop; return its exit code."""
    stop = StopSignal()
    vault = vault_of(config.encryption.key, config.encryption.old_keys)
    codec = MessageCodec(vault)
    async with AsyncExitStack() as stack:
        extension: Store | None = load_extension("datastore", config, vault=vault)
        store = extension or SqliteStore(Path(config.datastore.sqlite.path), vault)
        stack.push_async_callback(store.close)
        await store.start()
        broker = from_config.embedded(config)
        stack.push_async_callback(broker.close)
        await broker.start()
        coordinator = Coordinator(config, store, broker, codec)
        worker = Worker(config, broker, codec)
        stack.push_async_callback(coordinator.close)
        stack.push_async_callback(worker.close)
        if await stop.lets(start_both(config, coordinator, worker, store)):
            log.info(
                "haulier is ready", address=coordinator.address, data=config.datastore.sqlite.path
            )
            await stop.wait()
            await worker.drain()
    return 0


async def start_both(
    config: Config, coordinator: Coordinator, worker: Worker, store: Store
) -> None:
    """Start both sides, each after what it needs."""
    await remember(config, worker, store)
    await worker.open_runtime()
    await remove_leftovers(worker, store)
    await coordinator.start()
    await take_up(coordinator)
    await worker.start()


async def remember(config: Config, worker: Worker, store: Store) -> None:
    """Store the worker's node before anything is made in its name: should this process be killed before its first
    beat, the next one knows whose the leftovers are. Its epoch is not open yet; the first beat opens it."""
    at = store.now()
    await store.insert(
        NodeDocument(
            id=worker.node_id,
            kind=NodeKind.WORKER,
            name=config.worker.name,
            hostname=socket.gethostname(),
            version=version(),
            started_at=at,
            last_heartbeat_at=at,
            epoch=0,
            closed=True,
        )
    )


async def remove_leftovers(worker: Worker, store: Store) -> None:
    """Remove what earlier processes on this datastore left in the engine. None of them can be alive: this one holds
    the datastore's lock. Nodes that it does not know belong to somebody else."""

    async def known(nodes: Collection[str]) -> Collection[str]:
        return [node.id for node in await store.get_many(NodeDocument, sorted(nodes))]

    await worker.daemon.remove_left_by(known, LEFTOVERS_WITHIN)


async def take_up(coordinator: Coordinator) -> None:
    """Go on where an earlier process was: its runs are lost, its queues are filled again."""
    await coordinator.driver.handle(repairs.void_leases())
    await coordinator.driver.handle(repairs.send_all_again())
