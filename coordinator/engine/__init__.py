"""Decisions: what follows from a message or a command. Pure: no I/O, no clock, no randomness of its own.

A decision is a `Flow`: a generator that yields what it wants to know or have written, one document at a time, and
is sent the answers. Whoever drives it (`coordinator.effects`; a test) may stop between any two steps: what was
written holds the intents of what comes next.
"""
