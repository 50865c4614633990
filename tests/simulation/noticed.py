"""Which mechanisms the simulation is known to notice the lack of, by which seed; and why not the others."""

from __future__ import annotations

from typing import Final

NOTICED: Final[dict[str, int]] = {
    "then": 0,
    "confirm": 0,
    "derived-ids": 6,
    "claim": 5,
    "grant": 8,
    "nonce": 1,
    "run-number": 1,
    "beat-first": 12,
    "named-predecessors": 2,
    "written-ends": 188,
    "lost-channels": 8,
    "end-once": 8,
    "confirmed-ends": 165,
    "vanished": 13,
    "redeliveries": 8,
    "reconciliation": 76,
    "beat-numbers": 11,
    "lease": 1,
    "epochs": 33,
    "pulse": 106,
    "open": 4,
    "hand-over": 3,
    "sweeper": 1,
    "sweep-overdue": 0,
    "told-first": 16,
    "settled-era": 27,
    "firing-intent": 3,
    "sweep-unheard": 35,
    "who-is-dead": 53,
    "part-ids": 40,
    "store-clock": 0,
}
"""Mechanism → a seed that was seen to notice it."""

_NEIGHBOURS: Final = "what it costs others in seconds and bytes is measured by `make neighbours`"
_OUTSIDE: Final = "it is part of an adapter that is not simulated (RabbitMQ, HTTP, the runtimes)"
_VERSIONS: Final = "all processes of a simulation are of one version"

UNNOTICED: Final[dict[str, str]] = {
    "confirm-rabbitmq": _OUTSIDE,
    "unavailable": _OUTSIDE,
    "patient-ends": _OUTSIDE,
    "newer-kinds": _VERSIONS,
    "seldom-asked": _NEIGHBOURS,
    "patient-host": _NEIGHBOURS,
    "greedy-user": _NEIGHBOURS,
    "due-alone": _NEIGHBOURS,
    "due-room": _NEIGHBOURS,
    "due-places": _NEIGHBOURS,
}
"""Mechanism → why no seed notices it."""
