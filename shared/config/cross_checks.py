"""Checks of settings that must fit together (engine spec)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.config.tree import AMQP_HEARTBEAT, Config
from shared.config.values import duration_text

HEARTBEATS: Final = 3
BEATS: Final = 2

_Problem = tuple[str, str]
"""Path of the setting to blame, and what is wrong."""


def problems(config: Config) -> Iterator[_Problem]:
    """Yield what does not fit together in a configuration."""
    yield from _times(config)
    yield from _worker(config)
    yield from _middleware(config)
    if not config.runtime.shell.cmd:
        yield "runtime.shell.cmd", "must name a command"
    if config.encryption.old_keys and not config.encryption.key:
        yield "encryption.old_keys", "need a current key too: set encryption.key"


def role_problems(config: Config, role: str) -> Iterator[_Problem]:
    """Yield what keeps a `standalone`, `coordinator` or `worker` from working."""
    if role != "standalone" and config.broker.type == "memory":
        problem = (
            f"a {role} on its own needs a broker that other processes can reach: set broker.type=rabbitmq, "
            "or start everything in one process: haulier run standalone"
        )
        yield "broker.type", problem


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
