"""Which mechanisms the simulation is known to notice the lack of, by which seed; and why not the others."""

from __future__ import annotations

from typing import Final

NOTICED: Final[dict[str, int]] = {
    "then": 0,
    "confirm": 0,
    "derived-ids": 6,
    "claim": 1,
    "grant": 8,
    "nonce": 8,
    "run-number": 8,
    "beat-first": 49,
    "named-predecessors": 32,
    "written-ends": 190,
    "lost-channels": 8,
    "end-once": 45,
    "confirmed-ends": 6,
    "vanished": 13,
    "redeliveries": 8,
    "reconciliation": 76,
    "beat-numbers": 22,
    "lease": 17,
    "epochs": 33,
    "pulse": 149,
    "open": 4,
    "hand-over": 15,
    "sweeper": 0,
    "sweep-overdue": 1,
    "told-first": 17,
    "settled-era": 12,
    "firing-intent": 5,
    "sweep-unheard": 88,
    "who-is-dead": 53,
    "part-ids": 27,
    "store-clock": 2,
    "sweep-slots": 43,
    "sweep-composites": 16,
    "unstorable-ends": 35,
    "closed-for-good": 32,
    "removal-below": 0,
    "kept-ends": 76,
    "taking-back": 157,
    "era": 189,
    "drain-stored": 66,
    "due-shared": 21,
    "sweep-unconfirmed": 3,
    "stands-back": 5,
    "parts-before-end": 6,
    "webhook-claims": 0,
    "stored-first": 78,
    "grant-look": 35,
    "look-again": 4,
    "sub-job-look": 19,
    "withdraw-below": 115,
    "long-withdrawals": 7,
    "tombstones": 13,
    "vars-of-restart": 9,
    "restarts": 38,
    "sweep-restarts": 110,
    "sweep-sub-jobs": 9,
    "unique-slots": 102,
}
"""Mechanism → a seed that was seen to notice it."""

_NEIGHBOURS: Final = "what it costs others in seconds and bytes is measured by `make neighbours`"
_OUTSIDE: Final = "it is part of an adapter that is not simulated (RabbitMQ, HTTP, the runtimes)"
_VERSIONS: Final = "all processes of a simulation are of one version"
_NO_TIME: Final = "no time passes on a virtual clock while something is worked out"
_LASTS_LONGER: Final = (
    "it counts from ten minutes after the pulse began on, and hardly a history lasts so long"
)
_FAILS_FOR_GOOD: Final = "no step fails for good there: what fails is tried again, and goes well"
_WHOLE_RERUNS: Final = "jobs that are run again there keep nothing of the job before"
_BUSY: Final = "no queue there is busy for the time after which a task counts as overtaken"
_LATE_LOOKS: Final = (
    "no coordinator there is so late, and awake, that a firing has been due for a minute"
)
_BEFORE_IT: Final = (
    "each sweep cancels what is below ended jobs before it sends anything again: only what ends "
    "between the two is left to this look"
)
_HELD_CLAIMS: Final = (
    "it takes claims that are held up while who sent them is cut off for a moment, and hardly a seed "
    "below 200 has both"
)
_OUTLASTING: Final = (
    "below 200 no worker is stopped while a run outlasts its grace time; seed 253 notices it"
)
_CLOSED_LATE: Final = (
    "below 200 no coordinator dies while it closes an epoch and runs are left; seed 370 notices it"
)
_DRAINED_SOON: Final = (
    "below 200 no worker that drains has an end that is not stored within its last moments; seed 557 "
    "notices it"
)
_OTHER_LOOKS: Final = (
    "other looks of the same sweep withdraw what waits for a slot or is to be sent, and little is "
    "left to this one; seed 400 notices it"
)

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
    "turns-of-evaluations": _NO_TIME,
    "logs-that-grow": _LASTS_LONGER,
    "due-tries": _FAILS_FOR_GOOD,
    "dead": _FAILS_FOR_GOOD,
    "unready-jobs": _WHOLE_RERUNS,
    "sweep-overtaken": _BUSY,
    "late-firings": _LATE_LOOKS,
    "sweep-unwanted": _BEFORE_IT,
    "sweep-ended": _OTHER_LOOKS,
    "unwanted-grants": _HELD_CLAIMS,
    "drain-hands-back": _OUTLASTING,
    "closed-epochs": _CLOSED_LATE,
    "drain-waits": _DRAINED_SOON,
}
"""Mechanism → why no seed notices it."""
