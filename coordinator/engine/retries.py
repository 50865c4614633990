"""The next attempt at a task that failed: whether there is one, and how long it waits."""

from __future__ import annotations

from coordinator.engine.new_documents import task_id
from shared.durations import duration_seconds
from shared.ids import seed_of
from shared.model import language
from shared.model.documents import MICROS_PER_SECOND, Micros, TaskDocument
from shared.model.states import Hold, TaskKind

MAX_DELAY = 24 * 3600.0
"""Seconds."""


def next_attempt(task: TaskDocument, at: Micros) -> TaskDocument | None:
    """Return the attempt after `task`, which failed, or None where its retries are used up."""
    retry = task.definition.retry
    if (
        task.kind != TaskKind.CONTAINER
        or retry is None
        or task.attempt > (retry.limit or language.DEFAULT_RETRY_LIMIT)
    ):
        return None
    attempt = task.attempt + 1
    id = task_id(task.job_id, task.restarts, task.path, attempt)
    return TaskDocument(
        id=id,
        job_id=task.job_id,
        root_id=task.root_id,
        parent_id=task.parent_id,
        path=task.path,
        position=task.position,
        index=task.index,
        depth=task.depth,
        kind=task.kind,
        name=task.name,
        definition=task.definition,
        hold=Hold.DELAY,
        due_at=(task.ended_at or at) + retry_delay(retry, task.attempt, seed_of(id)),
        restarts=task.restarts,
        attempt=attempt,
        seed=seed_of(id),
        scope=task.scope,
        var=task.definition.var,
        slot_of=task.slot_of,
        slot=task.slot,
        window_of=task.window_of,
        window=task.window,
        created_at=at,
    )


def retry_delay(retry: language.Retry, failed: int, seed: int) -> Micros:
    """Return the delay before the attempt after `failed` ones: initialDelay · scalingFactor^(failed-1), spread by
    jitter (0 to 1) to both sides; at most a day."""
    initial = duration_seconds(retry.initial_delay or language.DEFAULT_RETRY_DELAY)
    factor = float(retry.scaling_factor or language.DEFAULT_RETRY_SCALING)
    delay = min(initial * factor ** (failed - 1), MAX_DELAY)
    spread = float(retry.jitter or 0.0) * ((seed % 10_000) / 5_000 - 1.0)
    return int(delay * (1.0 + spread) * MICROS_PER_SECOND)
