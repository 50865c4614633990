"""Carries decisions out: runs the engine's flows against the real store and broker."""

from coordinator.effects.flow_driver import FlowDriver

__all__ = ["FlowDriver"]
