"""The brokers as the configuration describes them, for the composition roots."""

from __future__ import annotations

from shared.broker.port import Broker
from shared.config.tree import Config

NODE_EXPIRY_MARGIN = 20.0
"""Seconds that a node's queue outlives the longest that the node may be away without being dead."""


def rabbitmq(config: Config, name: str) -> Broker:
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
    )


def memory(config: Config) -> Broker:
    """Return the broker of a single process."""
    from shared.broker.memory import MemoryBroker

    return MemoryBroker(node_expiry=_node_expiry(config))


def _node_expiry(config: Config) -> float:
    return config.engine.lease + config.engine.reconnect_cap + NODE_EXPIRY_MARGIN
