"""Runtimes run tasks: the port and its adapters."""
