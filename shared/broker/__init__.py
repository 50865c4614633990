"""Delivery of messages: the port and its adapters."""
