"""Worlds, as the engine's tests have them."""

from tests.unit.conftest import folder
from tests.unit.engine.conftest import place, world

__all__ = ["folder", "place", "world"]
