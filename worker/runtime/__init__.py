"""Runtimes: each runs one task and gives back its end. The port and its adapters."""
