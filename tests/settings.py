"""Bounds and brokers for tests, which give only what they are about."""

from typing import Any

import msgspec

from coordinator.app import bounds_of
from coordinator.engine.flow import Bounds
from shared.broker.rabbitmq import RabbitMQBroker
from shared.config import Config


def default_bounds(**changed: Any) -> Bounds:
    """Return the bounds of an engine whose settings are the default ones, but for those in `changed`."""
    return msgspec.structs.replace(bounds_of(Config()), **changed)


def rabbitmq_broker(url: str, management_url: str | None = None, **changed: Any) -> RabbitMQBroker:
    """Return a broker, not started."""
    settings = {"queue_type": "classic", "node_expiry": 60.0, "reconnect_cap": 10.0, **changed}
    return RabbitMQBroker(url, management_url, **settings)
