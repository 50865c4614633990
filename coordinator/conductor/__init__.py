"""Carries decisions out: drives the engine's flows against the real store and broker."""

from coordinator.conductor.conductor import Conductor

__all__ = ["Conductor"]
