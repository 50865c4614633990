"""Runs an audit of the datastore, broker and engine that a configuration names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from coordinator.app import make_store
from coordinator.audit_chain import ChainFault, audit_key, faults
from coordinator.queue_stats import all_queues
from coordinator.store.port import Above, Store
from haulier.audit import Finding, audit_engine, audit_queues, audit_store
from shared.broker import from_config
from shared.config import Config
from shared.encryption import vault_of
from shared.errors import ApplicationError, RuntimeUnavailable
from shared.model.documents import MICROS_PER_SECOND, AuditDocument
from worker.runtime.docker.sweep import labelled_things

_ENTRIES_READ: Final = 1000
_ANSWER_WITHIN: Final = 30.0
"""Seconds that a datastore or a broker has to answer at first."""


class AuditReport(msgspec.Struct, frozen=True):
    """What an audit found, and what it could not check."""

    findings: list[Finding]
    not_seen: list[str]


async def audit_sources(config: Config, patience: float) -> AuditReport:
    """Audit the datastore, the broker and the engine of this host.

    Raises `ApplicationError` where the datastore or the broker can't be read. An engine that does not
    answer is named in the report: not every host that can audit has one."""
    not_seen: list[str] = []
    async with _store(config) as store:
        findings = await audit_store(store, patience)
        if config.broker.type == "memory":
            not_seen.append("queues: with broker.type=memory only the process itself can see them")
        else:
            findings += await _queues(config, store, patience)
        if config.runtime.type != "shell":
            findings += await _engine(config, store, patience, not_seen)
    return AuditReport(sorted(findings), not_seen)


async def audit_log_faults(config: Config) -> tuple[int, list[ChainFault]]:
    """Check the chains of the audit log: return how many entries there are, and what is wrong with them.

    Raises `ApplicationError` where the datastore can't be read."""
    keys = [audit_key(key) for key in (config.encryption.key, *config.encryption.old_keys)]
    kept = int(config.datastore.retention.audit * MICROS_PER_SECOND)
    found: list[ChainFault] = []
    async with _store(config) as store:
        since = store.now() - kept if kept else 0
        entries = [entry async for entry in _entries(store)]
        found += faults(entries, keys, since)
    return len(entries), found


async def _entries(store: Store) -> AsyncIterator[AuditDocument]:
    """Yield the entries of all chains, chain by chain, in order."""
    chain, number = "", 0
    while True:
        rest = {"chain": chain, "number": Above(number)}
        found = await store.find(AuditDocument, rest, ("number",), limit=_ENTRIES_READ)
        if not found:
            found = await store.find(AuditDocument, {"chain": Above(chain)}, ("chain", "number"), 1)
        if not found:
            return
        for entry in found:
            yield entry
        chain, number = found[-1].chain, found[-1].number


@asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Store]:
    _check_is_there(config)
    vault = vault_of(config.encryption.key, config.encryption.old_keys)
    store = make_store(config, vault)
    try:
        await _begun(store.start(), "the datastore")
        yield store
    finally:
        await store.close()


def _check_is_there(config: Config) -> None:
    """Raise `ApplicationError` where there is no datastore: an audit makes none to find it clean."""
    path = Path(config.datastore.sqlite.path)
    if config.datastore.type == "sqlite" and not path.exists():
        raise ApplicationError(f"there is no datastore at {path} (datastore.sqlite.path)")


async def _queues(config: Config, store: Store, patience: float) -> list[Finding]:
    broker = from_config.rabbitmq(config, "audit")
    try:
        await _begun(broker.start(), "the broker")
        return await audit_queues(store, await all_queues(store, broker), patience)
    finally:
        await broker.close()


async def _engine(
    config: Config, store: Store, patience: float, not_seen: list[str]
) -> list[Finding]:
    try:
        things = await labelled_things(config)
    except RuntimeUnavailable as error:
        not_seen.append(f"containers, volumes and networks: {error}")
        return []
    return await audit_engine(store, things, patience)


async def _begun(start: Awaitable[None], what: str) -> None:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            await start
    except TimeoutError:
        raise ApplicationError(f"{what} did not answer within {_ANSWER_WITHIN:g} s") from None
