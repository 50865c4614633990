"""What a worker tells of the end of a run."""

from __future__ import annotations

from shared.model.documents import Usage
from shared.model.messages import HandedBack, RunEnded
from worker.run_registry import Entry
from worker.runtime.port import Outcome


def handed_back(entry: Entry, node_id: str, outcome: Outcome | None) -> HandedBack:
    """Return what hands a run back: at no cost, or as lost where its container vanished."""
    reason = entry.stopped or (outcome.error if outcome is not None else None) or "lost"
    return HandedBack(
        task_id=entry.task_id,
        job_id=entry.job_id,
        run=entry.run,
        nonce=entry.nonce,
        node_id=node_id,
        reason=reason,
        vanished=outcome is not None and outcome.lost,
    )


def run_ended(
    entry: Entry, node_id: str, outcome: Outcome, log: tuple[int, str | None], seconds: float
) -> RunEnded:
    """Return the end of a run; `log` gives the number of its log's parts and the last one's contents."""
    parts, last = log
    return RunEnded(
        task_id=entry.task_id,
        job_id=entry.job_id,
        run=entry.run,
        nonce=entry.nonce,
        node_id=node_id,
        ok=outcome.error is None,
        result=outcome.result,
        error=outcome.error,
        exit_code=outcome.exit_code,
        usage=outcome.usage or Usage(wall_seconds=seconds, sampled=True),
        log_parts=parts,
        last_part=last,
    )
