"""Configuration: the typed tree of settings and where values come from (the configuration spec)."""

from shared.config.load import Loaded, load
from shared.config.problems import ConfigProblem, ConfigurationError
from shared.config.schema import AMQP_HEARTBEAT, Config
from shared.config.sources import Override
from shared.config.values import parse_address

__all__ = [
    "AMQP_HEARTBEAT",
    "Config",
    "ConfigProblem",
    "ConfigurationError",
    "Loaded",
    "Override",
    "load",
    "parse_address",
]
