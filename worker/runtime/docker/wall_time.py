"""How long a container ran: by the engine's times, put right by what the worker itself saw."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass
class Seen:
    """What the worker saw of a container's life, by its own clocks, in seconds."""

    called: float = 0.0
    """When its start was asked for, since the epoch."""
    asked: float = 0.0
    """The same, on a clock that nobody sets."""
    started: float | None = None
    """When the engine said that it had started."""
    ended: float | None = None
    """When its end was heard of."""

    def start_asked(self) -> None:
        """It is about to be started."""
        self.called, self.asked = time.time(), time.monotonic()

    def has_started(self) -> None:
        """The engine says that it has started."""
        self.started = time.monotonic()

    def has_ended(self) -> None:
        """Its end was heard of."""
        self.ended = time.monotonic()


def seconds(state: Mapping[str, Any], seen: Seen, script_read: float | None) -> float:
    """Return how long it ran; 0 where it never did.

    A busy engine notes a start late, sometimes after the end. Where the worker shares the engine's
    files, `script_read` is when the script was first read (since the epoch; else None): a start that
    is noted later than that is wrong. It cannot have run for longer than from the call that started it
    until its end was heard of; and where the engine's times say nothing, what the worker saw counts.
    """
    if seen.started is None or seen.ended is None:
        return 0.0
    ran = _by_the_engine(state, seen.called, script_read)
    return min(ran if ran > 0 else seen.ended - seen.started, seen.ended - seen.asked)


def _by_the_engine(state: Mapping[str, Any], called: float, script_read: float | None) -> float:
    """Return seconds; not positive where the engine's times are missing or make no sense."""
    try:
        began, ended = (_time(state[name]) for name in ("StartedAt", "FinishedAt"))
    except (KeyError, ValueError):
        return 0.0
    if script_read is not None and called <= script_read < began:
        began = script_read
    return ended - began


def _time(text: str) -> float:
    """Return the seconds since the epoch that RFC 3339 text says. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
