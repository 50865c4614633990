"""Leases: when one has run out, and the runs that are lost with it (engine spec, Beats)."""

from __future__ import annotations

from coordinator.engine import beats
from coordinator.engine.flow import Flow, bounds, change, find, note_event, now
from coordinator.engine.pulse import QUEUES, read_pulse
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    Micros,
    NodeDocument,
    TaskDocument,
)
from shared.model.queries import Below, Not
from shared.model.states import TaskState


def expire_leases() -> Flow[list[Document]]:
    """Close the epoch of each node whose lease ended before the pulse, in an era that is old enough to say so."""
    pulse = yield from read_pulse()
    limits = yield from bounds()
    at = yield from now()
    if any(queue not in pulse.stamps for queue in QUEUES):
        return []
    lowest = min(pulse.stamps[queue] for queue in QUEUES)
    if at - pulse.era_at <= limits.lease + limits.reconnect_cap:
        return []
    where = {"closed": False, "lease_until": Below(min(lowest, at))}
    follow: list[Document] = []
    for node in (yield from find(NodeDocument, where)):
        yield from note_event("lease_ran_out", node.id)
        follow += yield from beats.close_epoch(node)
    return follow


LOOKED_AT_FOR: Micros = 600 * MICROS_PER_SECOND
"""For so long after its last beat a node that is dead is looked at for runs that are left: a grant may still be on its
way while its epoch is closed."""

NODES_AT_ONCE = 500


def runs_of_closed_epochs() -> Flow[list[Document]]:
    """Lose runs that a coordinator which died while closing an epoch left behind."""
    follow: list[Document] = []
    at = yield from now()
    dead = {"closed": True, "left_nothing": Not(True)}
    for node in (yield from find(NodeDocument, dead, limit=NODES_AT_ONCE)):
        left = yield from find(
            TaskDocument,
            {"node_id": node.id, "state": TaskState.RUNNING, "epoch": Below(node.epoch + 1)},
            limit=1,
            without=TaskDocument.heavy,
        )
        if left:
            follow += yield from beats.lose_runs(node)
        elif node.last_heartbeat_at < at - LOOKED_AT_FOR:
            here = {"closed": True, "epoch": node.epoch}
            yield from change(NodeDocument, node.id, here, {"left_nothing": True})
    return follow
