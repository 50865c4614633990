"""What comes in: the coordinators' queues, each message decoded, handled, and settled."""

from coordinator.consumers.queue_consumers import QueueConsumers

__all__ = ["QueueConsumers"]
