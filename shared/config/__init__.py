"""Configuration: the typed tree of settings and where values come from (the configuration spec)."""

from shared.config.tree import AMQP_HEARTBEAT, Config

__all__ = ["AMQP_HEARTBEAT", "Config"]
