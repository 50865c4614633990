"""Consumes the coordinators' queues: decodes, handles and settles each message."""

from coordinator.consumers.queue_consumers import QueueConsumers

__all__ = ["QueueConsumers"]
