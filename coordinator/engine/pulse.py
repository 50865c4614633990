"""The pulse: how far the coordinators' queues have been handled, so that a backlog makes no node look dead.

Each coordinator sends probes, stamped with the store's time, through the queues on which nodes are heard. Who takes
one moves that queue's stored stamp on, a handler's deadline later: by then everything sent before it was handled or
given back. The lowest stamp is the pulse. A new era begins whenever things stood still (engine spec, The pulse).
"""

from __future__ import annotations

from typing import Any

from coordinator.engine.flow import Flow, bounds, change, get, insert, note_event, now
from shared.model.documents import (
    MICROS_PER_SECOND,
    Micros,
    Pulse,
)
from shared.model.queues import COMPLETED_QUEUE, ERROR_QUEUE, HEARTBEAT_QUEUE, LOGS_QUEUE

PULSE_ID = "pulse"
QUEUES = (COMPLETED_QUEUE, ERROR_QUEUE, HEARTBEAT_QUEUE)
"""The lowest stamp of these is the pulse."""
PROBED = (*QUEUES, LOGS_QUEUE)

STALE: Micros = 15 * MICROS_PER_SECOND
"""A probe that took so long, or came so long after the last, says that things stood still."""

FORCE_INTERVAL: Micros = 300 * MICROS_PER_SECOND
"""A coordinator whose own link broke may begin a new era once in so long."""


STAMP_TRIES = 20
"""All queues' probes are taken at about the same time, in every coordinator: so often one tries to move its stamp."""


def read_pulse() -> Flow[Pulse]:
    """Return the stored pulse, making it where there is none."""
    pulse = yield from get(Pulse, PULSE_ID)
    if pulse is not None:
        return pulse
    at = yield from now()
    fresh = Pulse(id=PULSE_ID, moved_at=at, era_at=at)
    yield from insert(fresh)
    return (yield from get(Pulse, PULSE_ID)) or fresh


def era_began() -> Flow[Micros]:
    """Return when the era began: now, where things stand still, and the next probe that is taken will say so."""
    pulse = yield from read_pulse()
    at = yield from now()
    return at if (yield from _stands_still(pulse, at)) else pulse.era_at


def _stands_still(pulse: Pulse, at: Micros) -> Flow[bool]:
    return at - pulse.moved_at >= STALE + (yield from bounds()).handler_deadline


def probe_taken(queue: str, sent_at: Micros, taken_at: Micros) -> Flow[None]:
    """Move a queue's stamp to a probe that was taken at `taken_at`, a handler's deadline ago."""
    for _ in range(STAMP_TRIES):
        if (yield from _moved(queue, sent_at, taken_at)):
            return


def _moved(queue: str, sent_at: Micros, taken_at: Micros) -> Flow[bool]:
    """Try to move a stamp on; False where somebody else moved one at the same time."""
    pulse = yield from read_pulse()
    at = yield from now()
    stored = pulse.stamps.get(queue, 0)
    stood_still = taken_at - sent_at >= STALE or sent_at <= stored - STALE
    stood_still = stood_still or (yield from _stands_still(pulse, at))
    fields: dict[str, Any] = {"moved_at": at, "rev": pulse.rev + 1}
    if stood_still:
        fields["era_at"] = at
    if stood_still or sent_at > stored:
        fields["stamps"] = {**pulse.stamps, queue: sent_at}
    image = yield from change(Pulse, PULSE_ID, {"rev": pulse.rev}, fields)
    if image is not None and stood_still:
        yield from note_event("new_era", queue)
    return image is not None


def link_was_lost(coordinator: str) -> Flow[None]:
    """Begin a new era: this coordinator's own connection to the broker was lost and is back."""
    for _ in range(STAMP_TRIES):
        if (yield from _forced(coordinator)):
            return


def _forced(coordinator: str) -> Flow[bool]:
    """Try to begin a new era; False where the pulse was moved at the same time."""
    pulse = yield from read_pulse()
    at = yield from now()
    if at - pulse.forced.get(coordinator, 0) < FORCE_INTERVAL:
        return True
    recent = {name: when for name, when in pulse.forced.items() if at - when < FORCE_INTERVAL}
    fields = {"era_at": at, "rev": pulse.rev + 1, "forced": {**recent, coordinator: at}}
    image = yield from change(Pulse, PULSE_ID, {"rev": pulse.rev}, fields)
    if image is not None:
        yield from note_event("new_era", coordinator)
    return image is not None
