"""Reads stored logs: only those of the current run, waiting for parts that are still on their way.

The end of a run may be stored before the last parts of its log (the engine spec, Logs).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Sequence
from functools import partial
from typing import Any, Final

from coordinator.api.context import Api, caller_id
from coordinator.api.view_data import stored_parts
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    LogPartDocument,
    Micros,
    Pulse,
    TaskDocument,
)
from shared.model.queries import Above, In, Where
from shared.model.queues import LOGS_QUEUE
from shared.model.states import TaskKind
from shared.supervision import Backoff

_PATIENCE: Final = 30.0
"""Seconds that missing parts are waited for, once all logs sent before the end were handled."""
UNTOLD: Final = 2.0
"""Seconds that a log may go on after the end of a run that did not say how long it is."""
READ_BATCH: Final = 50
"""Documents read at a time."""
_FEWEST: Final = 2
_PARTS: Final = 200
_BATCH_SIZE: Final = 128 * 1024
"""Characters of parts that are read at a time, about: what a reader that stops reading keeps in memory."""
_RECENT: Final = 2 * 60
"""Seconds after its end within which a run's log may be incomplete."""
_LOOK, _LONGEST_LOOK = 0.1, 2.0
"""Seconds between looks for parts that are on their way: ever more of them."""
_MAX_RECENT: Final = 1000


Read = Callable[[Hashable, Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]]
"""Asks the datastore, or whoever else asks the same (`SharedReads.read`)."""


async def ask_alone(_: Hashable, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Ask the datastore what nobody else asks."""
    return await ask()


async def overdue(api: Api, ended_at: Micros, read: Read = ask_alone) -> bool:
    """Tell whether the missing parts of a run that ended then need not be waited for any more."""
    pulses = await read("pulse", partial(api.store.find, Pulse, {}, limit=1))
    mark = pulses[0].stamps.get(LOGS_QUEUE) if pulses else None
    handled_up_to = api.store.now() if mark is None else mark
    return handled_up_to - ended_at > _PATIENCE * MICROS_PER_SECOND


async def batches_after(
    api: Api, task: TaskDocument, number: int, read: Read = ask_alone
) -> AsyncIterator[list[LogPartDocument]]:
    """Yield the parts of a task's counted run that are stored, from the one after `number` on, some at a time."""
    limit = _FEWEST
    while parts := await read(
        (task.id, task.run, number, limit), partial(_parts, api, task, number, limit)
    ):
        yield parts
        if len(parts) < limit:
            return
        number = parts[-1].number
        limit = fitting(parts)


def fitting(parts: Sequence[LogPartDocument]) -> int:
    """Return how many parts to read at a time, where they are as long as these."""
    each = log_size(parts) // len(parts) + 1
    return max(_FEWEST, min(_BATCH_SIZE // each, _PARTS))


async def _parts(api: Api, task: TaskDocument, number: int, limit: int) -> list[LogPartDocument]:
    where: Where = {"task_id": task.id, "run": task.run, "number": Above(number)}
    async with api.log_reads.turn(caller_id()):
        return await api.store.find(LogPartDocument, where, order=("number",), limit=limit)


def log_size(parts: Sequence[LogPartDocument]) -> int:
    """Return how many characters parts of a log have."""
    return sum(len(part.contents) for part in parts)


async def await_parts(api: Api, tasks: Sequence[TaskDocument]) -> None:
    """Wait until the logs of these ended runs are whole, as long as that can be hoped for."""
    ended = [task for task in tasks if task.log_parts and task.ended_at is not None]
    if ended:
        about = frozenset((task.id, task.run) for task in ended)
        await api.log_waits.read(about, partial(_parts_stored, api, ended))


async def _parts_stored(api: Api, ended: Sequence[TaskDocument]) -> None:
    deadline, looks = time.monotonic() + _PATIENCE, Backoff(_LOOK, _LONGEST_LOOK, factor=1.5)
    while ended and time.monotonic() < deadline and not api.closing.is_set():
        stored = await stored_parts(api, ended)
        ended = [task for task in ended if stored.get(task.id, 0) < (task.log_parts or 0)]
        last = max((task.ended_at or 0 for task in ended), default=0)
        if not ended or await overdue(api, last):
            return
        await asyncio.sleep(looks.next())


async def recently_ended(api: Api, job: JobDocument) -> list[TaskDocument]:
    """Return the tasks of a job whose logs may still be on their way."""
    since = api.store.now() - _RECENT * MICROS_PER_SECOND
    if job.ended_at is not None and job.ended_at < since:
        return []
    where: Where = {"job_id": job.id, "ended_at": Above(since)}
    return await api.store.find(TaskDocument, where, limit=_MAX_RECENT, without=TaskDocument.heavy)


async def counted_parts(api: Api, parts: Sequence[LogPartDocument]) -> list[LogPartDocument]:
    """Return those of `parts` that belong to the run of their task that counts."""
    where: Where = {"id": In(tuple({part.task_id for part in parts}))}
    tasks = await api.store.find(TaskDocument, where, without=TaskDocument.heavy)
    runs = {task.id: task.run for task in tasks}
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
        without=TaskDocument.heavy,
    )
    if len(same) == limit:
        return same
    later = await api.store.find(
        TaskDocument,
        {**base, "created_at": Above(created_at)},
        order=("created_at", "id"),
        limit=limit - len(same),
        without=TaskDocument.heavy,
    )
    return same + later


async def whole_log(api: Api, job: JobDocument) -> AsyncIterator[str]:
    """Yield what is stored of a job's log, task by task: no line has parts of two of them."""
    at: tuple[Micros, str] = (0, "")
    last = ""
    while tasks := await tasks_in_turn(api, job, at, READ_BATCH):
        at = (tasks[-1].created_at, tasks[-1].id)
        for task in tasks:
            between = "" if last in ("", "\n") else "\n"
            async for text in _log_of(api, task):
                yield between + text
                between, last = "", text[-1:]


async def _log_of(api: Api, task: TaskDocument) -> AsyncIterator[str]:
    if task.run:
        async for parts in batches_after(api, task, 0):
            for part in parts:
                if part.contents:
                    yield part.contents
