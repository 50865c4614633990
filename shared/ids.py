"""Identifiers: random ones for what users submit, derived ones for what the engine creates."""

from __future__ import annotations

import hashlib
import uuid

import shortuuid

SEPARATOR = "\x1f"


def new_id() -> str:
    """Return a random id of 32 hex digits, for a job that a user submits."""
    return uuid.uuid4().hex


def node_id() -> str:
    """Return the id of a process: every start of a daemon is a new node (engine spec, Queues)."""
    return str(shortuuid.uuid())


def derived_id(*cause: object) -> str:
    """Return the id, 32 hex digits, that follows from `cause`: making a thing twice makes one thing."""
    text = SEPARATOR.join(str(part) for part in cause)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def seed_of(*cause: object) -> int:
    """Return the random seed, 63 bits, that follows from `cause`."""
    return int(derived_id("seed", *cause)[:15], 16)
