"""What comes in: the coordinators' queues, each message decoded, handled, and settled."""

from coordinator.intake.intake import Intake

__all__ = ["Intake"]
