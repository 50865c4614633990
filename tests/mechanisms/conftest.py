"""Worlds, as the engine's tests have them."""

from tests.unit.engine.conftest import folder, world

__all__ = ["folder", "world"]
