"""The brokers as the configuration describes them, for the composition roots."""

from __future__ import annotations

from collections.abc import Collection

from shared.broker.port import Broker
from shared.config.schema import Config
from shared.extensions import load_extension

NODE_EXPIRY_MARGIN = 20.0
"""Seconds that a node's queue outlives the longest that the node may be away without being dead."""


def remote(config: Config, name: str, queues: Collection[str] = ()) -> Broker:
    """Return the broker of a process that meets others: RabbitMQ, or the one of an extension. `queues`: what it will
    take from, beside those that are always there."""
    extension: Broker | None = load_extension("broker", config)
    return extension if extension is not None else rabbitmq(config, name, queues)


def embedded(config: Config) -> Broker:
    """Return the broker of a process that is alone: in memory, or the one of an extension."""
    extension: Broker | None = load_extension("broker", config)
    return extension if extension is not None else memory(config)


def rabbitmq(config: Config, name: str, queues: Collection[str] = ()) -> Broker:
    """Return the broker that processes on several machines meet at; `name` is how RabbitMQ shows our connections."""
    from shared.broker.rabbitmq import RabbitMQBroker  # loaded where it is used: standalone is not

    settings = config.broker.rabbitmq
    return RabbitMQBroker(
        settings.url,
        management_url=settings.management_url or None,
        queue_type=settings.queue_type,
        node_expiry=_node_expiry(config),
        reconnect_cap=config.engine.reconnect_cap,
        name=name,
        queues=queues,
        tls=settings.tls,
    )


def memory(config: Config) -> Broker:
    """Return the broker of a single process."""
    from shared.broker.memory import MemoryBroker

    return MemoryBroker(node_expiry=_node_expiry(config))


def _node_expiry(config: Config) -> float:
    return config.engine.lease + config.engine.reconnect_cap + NODE_EXPIRY_MARGIN
