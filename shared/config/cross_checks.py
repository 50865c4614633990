"""Checks of settings that must fit together (engine spec)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.config.schema import AMQP_HEARTBEAT, ClientTls, Config, RabbitMQ
from shared.config.values import duration_text
from shared.tls import tls_problems

HEARTBEATS: Final = 3
BEATS: Final = 2

_Problem = tuple[str, str]
"""Path of the setting to blame, and what is wrong."""


def problems(config: Config) -> Iterator[_Problem]:
    """Yield what does not fit together in a configuration."""
    yield from _times(config)
    yield from _worker(config)
    if not config.runtime.shell.cmd:
        yield "runtime.shell.cmd", "must name a command"
    if config.encryption.old_keys and not config.encryption.key:
        yield "encryption.old_keys", "need a current key too: set encryption.key"


def role_problems(config: Config, role: str) -> Iterator[_Problem]:
    """Yield what keeps a `standalone`, `coordinator` or `worker` from working."""
    named = config.extensions
    if role != "standalone" and config.broker.type == "memory" and not named.broker:
        problem = (
            f"a {role} on its own needs a broker that other processes can reach: set broker.type=rabbitmq, "
            "or start everything in one process: haulier run standalone"
        )
        yield "broker.type", problem
    if config.broker.type == "rabbitmq" and role != "standalone" and not named.broker:
        yield from _rabbitmq_tls(config.broker.rabbitmq)
    if config.datastore.type == "mongodb" and role == "coordinator" and not named.datastore:
        yield from tls_problems("datastore.mongodb.tls", config.datastore.mongodb.tls)
    if role != "worker":
        yield from _middleware(config)
        yield from tls_problems("coordinator.tls", config.coordinator.tls, ("key", "ca"))


def role_warnings(config: Config, role: str) -> Iterator[_Problem]:
    """Yield what a `standalone`, `coordinator` or `worker` does not use, though it was asked for."""
    if role != "standalone":
        return
    named = config.extensions
    if config.broker.type != "memory" and not named.broker:
        yield "broker.type", f"has no effect in standalone, which has its own broker; {_BOTH_SIDES}"
    if config.datastore.type != "sqlite" and not named.datastore:
        yield "datastore.type", f"has no effect in standalone, which uses SQLite; {_BOTH_SIDES}"


_BOTH_SIDES: Final = "start haulier run coordinator and haulier run worker to use it"


def _rabbitmq_tls(rabbitmq: RabbitMQ) -> Iterator[_Problem]:
    if rabbitmq.tls != ClientTls() and not rabbitmq.url.lower().startswith("amqps:"):
        yield "broker.rabbitmq.url", "must begin with amqps:// where broker.rabbitmq.tls is set"
    yield from tls_problems("broker.rabbitmq.tls", rabbitmq.tls)


def _times(config: Config) -> Iterator[_Problem]:
    engine = config.engine
    needed = HEARTBEATS * AMQP_HEARTBEAT + BEATS * engine.beat
    if engine.lease < needed:
        problem = (
            f"must be at least {duration_text(needed)}: {HEARTBEATS} AMQP heartbeats "
            f"({duration_text(AMQP_HEARTBEAT)} each) and {BEATS} beats "
            f"(engine.beat = {duration_text(engine.beat)}), or live workers would be considered dead"
        )
        yield "engine.lease", problem


def _worker(config: Config) -> Iterator[_Problem]:
    if config.worker.queues and not any(config.worker.queues.values()):
        yield "worker.queues", "must have at least one slot in one queue"


def _middleware(config: Config) -> Iterator[_Problem]:
    middleware = config.coordinator.middleware
    if middleware.key_auth.enabled and not middleware.key_auth.key:
        yield "coordinator.middleware.key_auth.key", "must be set if key_auth is enabled"
    basic = middleware.basic_auth
    if bool(basic.username) != bool(basic.password):
        missing = "password" if basic.username else "username"
        yield (
            f"coordinator.middleware.basic_auth.{missing}",
            "must be set too: the first user needs both a username and a password",
        )
    if middleware.cors.credentials and "*" in middleware.cors.origins:
        yield (
            "coordinator.middleware.cors.origins",
            "must list each origin if cors.credentials is on: browsers then reject *",
        )
