"""Worlds, as the engine's tests have them."""

from tests.unit.conftest import folder
from tests.unit.engine.conftest import world

__all__ = ["folder", "world"]
