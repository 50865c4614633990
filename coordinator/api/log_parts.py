"""Reads stored logs: only those of the current run, waiting for parts that are still on their way.

The end of a run may be stored before the last parts of its log (the engine spec, Logs).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from coordinator.api.context import Api
from coordinator.api.view_data import stored_parts
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    LogPartDocument,
    Micros,
    Pulse,
    TaskDocument,
)
from shared.model.queries import Above, Where
from shared.model.queues import LOGS_QUEUE
from shared.model.states import TaskKind

_PATIENCE: Final = 30.0
"""Seconds that missing parts are waited for, once all logs sent before the end were handled."""
UNTOLD: Final = 2.0
"""Seconds that a log may go on after the end of a run that did not say how long it is."""
READ_BATCH: Final = 50
"""Parts read at a time."""
_RECENT: Final = 2 * 60
"""Seconds after its end within which a run's log may be incomplete."""
_LOOK: Final = 0.1
_MAX_RECENT: Final = 1000


async def overdue(api: Api, ended_at: Micros) -> bool:
    """Tell whether the missing parts of a run that ended then need not be waited for any more."""
    pulses = await api.store.find(Pulse, {}, limit=1)
    mark = pulses[0].stamps.get(LOGS_QUEUE) if pulses else None
    handled_up_to = api.store.now() if mark is None else mark
    return handled_up_to - ended_at > _PATIENCE * MICROS_PER_SECOND


async def parts_after(api: Api, task: TaskDocument, number: int) -> list[LogPartDocument]:
    """Return the next parts of a task's counted run that are stored."""
    where: Where = {"task_id": task.id, "run": task.run, "number": Above(number)}
    return await api.store.find(LogPartDocument, where, order=("number",), limit=READ_BATCH)


async def await_parts(api: Api, tasks: Sequence[TaskDocument]) -> None:
    """Wait until the logs of these ended runs are whole, as long as that can be hoped for."""
    deadline = time.monotonic() + _PATIENCE
    ended = [task for task in tasks if task.log_parts and task.ended_at is not None]
    while ended and time.monotonic() < deadline and not api.closing.is_set():
        stored = await stored_parts(api, ended)
        ended = [task for task in ended if stored.get(task.id, 0) < (task.log_parts or 0)]
        last = max((task.ended_at or 0 for task in ended), default=0)
        if not ended or await overdue(api, last):
            return
        await asyncio.sleep(_LOOK)


async def recently_ended(api: Api, job: JobDocument) -> list[TaskDocument]:
    """Return the tasks of a job whose logs may still be on their way."""
    since = api.store.now() - _RECENT * MICROS_PER_SECOND
    if job.ended_at is not None and job.ended_at < since:
        return []
    where: Where = {"job_id": job.id, "ended_at": Above(since)}
    return await api.store.find(TaskDocument, where, limit=_MAX_RECENT)


async def counted_parts(api: Api, parts: Sequence[LogPartDocument]) -> list[LogPartDocument]:
    """Return those of `parts` that belong to the run of their task that counts."""
    ids = list({part.task_id for part in parts})
    runs = {task.id: task.run for task in await api.store.get_many(TaskDocument, ids)}
    return [part for part in parts if part.run >= runs.get(part.task_id, 0)]


async def tasks_in_turn(
    api: Api, job: JobDocument, after: tuple[Micros, str], limit: int
) -> list[TaskDocument]:
    """Return the next container tasks of a job by (creation, id)."""
    created_at, id = after
    base: dict[str, object] = {"job_id": job.id, "kind": TaskKind.CONTAINER}
    same = await api.store.find(
        TaskDocument,
        {**base, "created_at": created_at, "id": Above(id)},
        order=("id",),
        limit=limit,
    )
    if len(same) == limit:
        return same
    later = await api.store.find(
        TaskDocument,
        {**base, "created_at": Above(created_at)},
        order=("created_at", "id"),
        limit=limit - len(same),
    )
    return same + later


async def whole_log(api: Api, job: JobDocument) -> AsyncIterator[str]:
    """Yield what is stored of a job's log, task by task."""
    at: tuple[Micros, str] = (0, "")
    while tasks := await tasks_in_turn(api, job, at, READ_BATCH):
        at = (tasks[-1].created_at, tasks[-1].id)
        for task in tasks:
            number = 0
            while task.run and (parts := await parts_after(api, task, number)):
                number = parts[-1].number
                for part in parts:
                    yield part.contents
