"""Finds out why a task or job does not run, or why it failed (REST API spec, `waiting` and `why`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from coordinator.api.context import Api
from coordinator.queue_stats import one_queue, workers_known
from shared.broker.port import QueueInfo
from shared.errors import BrokerUnavailable
from shared.model.documents import JobDocument, LogPartDocument, NodeDocument, TaskDocument
from shared.model.queries import Below
from shared.model.queues import DEFAULT_QUEUE
from shared.model.states import (
    JOB_ACTIVE,
    TASK_ACTIVE,
    Hold,
    JobState,
    TaskKind,
    TaskState,
)
from shared.model.views import TaskRefView, View, WaitingView, rfc3339
from shared.model.views.redacted import TimeText
from shared.redaction import Redactor

_WAITS: Final = frozenset(TASK_ACTIVE) - {TaskState.RUNNING}
_LOOKED_AT: Final = 20
"""Open tasks of a job that are looked at to find out what it waits for."""
_COUNTED: Final = 10_000
_ASKED_WITHIN: Final = 2.0
"""Seconds that the broker has for what one answer asks of it."""
_QUEUES_ASKED: Final = 20
"""Queues that one answer asks the broker about."""
_AWAY: Final = "the broker is away"
_NOT_ASKED: Final = "the broker was not asked: too many queues are waited in"


class WhyView(View, frozen=True, kw_only=True):
    """Why a job or task does not run, or why it failed: in a sentence, and as data.

    `reason` is that of what is waiting (retry, concurrency, window, noWorker, busy, starting, lost, broker), or
    pulling, running, failed, cancelled, completed, skipped. `beforeCapped`: there are more than `before` tasks before
    it.
    """

    state: str
    reason: str
    message: str
    task: TaskRefView | None = None
    since: TimeText = ""
    until: TimeText = ""
    queue: str = ""
    node_id: str = ""
    slots: int | None = None
    before: int | None = None
    before_capped: bool = False
    attempts: int | None = None
    exit_code: int | None = None
    error: str = ""
    last_line: str = ""


class _Queue(msgspec.Struct, frozen=True):
    """How a queue is served. `taken`: deliveries that are out, None where that can't be known."""

    subscribers: int
    slots: int
    taken: int | None
    away: str = ""
    """Why the broker told nothing."""


class _Queues:
    """How queues are served: each is asked about once, and all within a bounded time."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._found: dict[str, _Queue] = {}
        self._workers: list[NodeDocument] | None = None
        self._until = asyncio.get_running_loop().time() + _ASKED_WITHIN
        self._away = ""

    async def get(self, name: str) -> _Queue:
        """Return one. Where the broker did not answer, the rest of an answer does not wait for it again."""
        if name not in self._found:
            self._found[name] = await self._look(name)
        return self._found[name]

    async def _look(self, name: str) -> _Queue:
        if self._workers is None:
            self._workers = await workers_known(self._api.store)
        slots = _slots(self._workers, name)
        if len(self._found) >= _QUEUES_ASKED:
            return _Queue(0, slots, None, away=_NOT_ASKED)
        found = None if self._away else await self._ask(name, self._workers)
        if found is None:
            return _Queue(0, slots, None, away=self._away)
        return _Queue(found.subscribers, slots, found.unacked)

    async def _ask(self, name: str, workers: Sequence[NodeDocument]) -> QueueInfo | None:
        try:
            async with asyncio.timeout_at(self._until):
                return await one_queue(self._api.store, self._api.broker, name, workers)
        except (BrokerUnavailable, TimeoutError):
            self._away = _AWAY
        return None


def _slots(workers: Iterable[NodeDocument], name: str) -> int:
    return sum(node.queues.get(name, 0) for node in workers)


async def waiting_tasks(api: Api, tasks: Iterable[TaskDocument]) -> dict[str, WaitingView]:
    """Return, by their ids, why those of `tasks` that could run do not."""
    queues = _Queues(api)
    found: dict[str, WaitingView] = {}
    for task in tasks:
        if task.state not in _WAITS:
            continue
        view = _held(task)
        if view is None and task.kind == TaskKind.CONTAINER and task.hold is None:
            name = task.queue or DEFAULT_QUEUE
            view = _queued(task, name, await queues.get(name))
        if view is not None:
            found[task.id] = view
    return found


def _held(task: TaskDocument) -> WaitingView | None:
    since = rfc3339(task.created_at)
    if task.hold == Hold.DELAY:
        until = rfc3339(task.due_at)
        message = f"waits for attempt {task.attempt} until {until}"
        return WaitingView(reason="retry", message=message, since=since, until=until)
    if task.hold == Hold.CONCURRENCY:
        message = "held by `concurrency`: as many of its siblings run as may at a time"
        return WaitingView(reason="concurrency", message=message, since=since)
    if task.hold == Hold.WINDOW:
        message = "held by the window: as many tasks of its job are under way as may be at a time"
        return WaitingView(reason="window", message=message, since=since)
    return None


def _queued(task: TaskDocument, name: str, queue: _Queue) -> WaitingView:
    reason, message = _queue_reason(task, name, queue)
    since = rfc3339(task.published_at or task.created_at)
    return WaitingView(reason=reason, message=message, since=since, queue=name)


def _queue_reason(task: TaskDocument, name: str, queue: _Queue) -> tuple[str, str]:
    if queue.away:
        return "broker", queue.away
    if not queue.subscribers:
        return "noWorker", f"no worker takes from `{name}`"
    if task.runs:
        return "lost", f"lost with node {task.runs[-1].node_id or 'unknown'}, runs again"
    if queue.slots and queue.taken is not None and queue.taken >= queue.slots:
        slots = "the only slot is" if queue.slots == 1 else f"all {queue.slots} slots are"
        return "busy", f"{slots} busy in `{name}`"
    return "starting", f"a worker is about to take it from `{name}`"


async def waiting_jobs(api: Api, jobs: Sequence[JobDocument]) -> dict[str, WaitingView]:
    """Return, by their ids, why nothing of those of `jobs` that are not over runs."""
    waiting: dict[str, TaskDocument] = {}
    for job in jobs:
        task = await _current_task(api, job) if job.state in JOB_ACTIVE else None
        if task is not None and task.state in _WAITS:
            waiting[job.id] = task
    views = await waiting_tasks(api, waiting.values())
    return {job_id: views[task.id] for job_id, task in waiting.items() if task.id in views}


_SUBJOBS: Final = 8
"""Sub-jobs that are looked into for one job; where there are more, it counts as running."""


async def _current_task(api: Api, job: JobDocument) -> TaskDocument | None:
    """Return a task that runs, of a job or of a sub-job in it; where none does, one that it waits for, if any."""
    waits: TaskDocument | None = None
    jobs = [job.id]
    for job_id in jobs:
        tasks = await _open_tasks(api, job_id)
        running = {task.kind: task for task in tasks if task.state == TaskState.RUNNING}
        if TaskKind.CONTAINER in running:
            return running[TaskKind.CONTAINER]
        jobs += [task.subjob_id for task in tasks if task.subjob_id]
        if len(jobs) > _SUBJOBS:
            return running.get(TaskKind.SUBJOB)
        waits = waits or next((task for task in tasks if task.state in _WAITS), None)
    return waits


async def _open_tasks(api: Api, job_id: str) -> list[TaskDocument]:
    where = {"job_id": job_id, "open": True}
    order = ("depth", "created_at")
    return await api.store.find(
        TaskDocument, where, order, limit=_LOOKED_AT, without=TaskDocument.heavy
    )


# --- why ----------------------------------------------------------------------------------------------------------


async def innermost(api: Api, job: JobDocument) -> JobDocument:
    """Return the job inside which a job failed: of all sub-jobs that failed by the next one, the last; else itself."""
    found: JobDocument | None = job
    while found is not None and found.state == JobState.FAILED and found.failed_task is not None:
        job = found
        task = await api.store.get(TaskDocument, found.failed_task.id)
        inner = task.subjob_id if task is not None else None
        found = await api.store.get(JobDocument, inner) if inner else None
    return job


async def why_job(api: Api, job: JobDocument, redactor: Redactor, inside: JobDocument) -> WhyView:
    """Return why a job does not run, or why it failed: `inside` itself or a sub-job, whose secrets `redactor` knows."""
    if job.state not in JOB_ACTIVE:
        return await _why_ended(api, job, inside, redactor)
    task = await _current_task(api, job)
    if task is None:
        return WhyView(state=job.state, reason="starting", message="it is about to begin")
    found = await why_task(api, task, redactor)
    where = found.task.name if found.task else task.name
    if task.job_id != job.id:
        where += ", in a sub-job"
    message = f"{where}: {found.message}"
    return _of_job(found, job, message)


async def _why_ended(
    api: Api, job: JobDocument, inside: JobDocument, redactor: Redactor
) -> WhyView:
    error = redactor.redact(job.error or "")
    if job.state == JobState.FAILED and job.failed_task is not None:
        failed = inside.failed_task or job.failed_task
        task = await api.store.get(TaskDocument, failed.id)
        if task is not None:
            found = await why_task(api, task, redactor)
            where = found.task.name if found.task else task.name
            if inside is not job:
                where += f", in the sub-job of {redactor.redact(job.failed_task.name)}"
            message = f"it failed at {where}: {_how(task, error)}"
            return _of_job(found, job, message, error=error)
    messages = {
        "FAILED": f"it failed: {error}" if error else "it failed",
        "CANCELLED": "it was cancelled",
    }
    message = messages.get(job.state, "it completed")
    return WhyView(state=job.state, reason=job.state.lower(), message=message, error=error)


def _of_job(found: WhyView, job: JobDocument, message: str, **more: str) -> WhyView:
    """Return what holds for a task as an answer about its job."""
    fields = msgspec.structs.asdict(found) | {"state": job.state, "message": message}
    return WhyView(**fields | more)


def _how(task: TaskDocument, error: str) -> str:
    first = error.partition("\n")[0].removeprefix(f"task {task.name!r}: ") or "no reason was given"
    return first if task.attempt == 1 else f"{first} (after {task.attempt} attempts)"


async def why_task(api: Api, task: TaskDocument, redactor: Redactor) -> WhyView:
    """Return why a task does not run, or why it failed."""
    seen = task.opened()
    name = redactor.redact((seen.evaluated or seen.definition).name or task.name)
    ref = TaskRefView(id=task.id, name=name)
    waiting = (await waiting_tasks(api, [task])).get(task.id)
    if waiting is not None:
        return await _why_waiting(api, task, ref, waiting)
    error = redactor.redact(task.error or "")
    pulled = redactor.redact(await _pulled(api, task)) if task.state == TaskState.RUNNING else ""
    return WhyView(
        state=task.state,
        reason="pulling" if pulled else task.state.lower(),
        message=pulled or _told(task, error),
        task=ref,
        since=rfc3339(task.ended_at or task.started_at or task.created_at),
        queue=task.queue or "",
        node_id=task.node_id or "",
        attempts=task.attempt,
        exit_code=task.exit_code,
        error=error,
        last_line=await _last_line(api, task) if task.state == TaskState.FAILED else "",
    )


async def _pulled(api: Api, task: TaskDocument) -> str:
    """Tell that an image of a task is being pulled, if its worker said so last in its log."""
    said = await _last_line(api, task)
    whole = await api.store.get(TaskDocument, task.id) if said.startswith("pulling ") else None
    if whole is None:
        return ""
    whole = whole.opened()
    what = whole.evaluated or whole.definition
    name, _, far = said.removeprefix("pulling ").partition(": ")
    if name not in [each.image for each in (what, *what.pre, *what.post, *what.sidecars)]:
        return ""
    return f"its image {name} is being pulled" + (f": {far}" if far else "")


def _told(task: TaskDocument, error: str) -> str:
    if task.state == TaskState.FAILED:
        return f"it failed: {_how(task, error)}"
    if task.state == TaskState.RUNNING:
        return f"it runs on node {task.node_id}" if task.node_id else "it runs"
    ended = {"CANCELLED": "it was cancelled", "SKIPPED": "it was skipped: its `if` is false"}
    return ended.get(task.state, "it completed" if task.ended_at else "it is about to begin")


async def _why_waiting(
    api: Api, task: TaskDocument, ref: TaskRefView, waiting: WaitingView
) -> WhyView:
    message, slots, before, more = waiting.message, None, None, False
    if waiting.queue and waiting.reason != "broker":
        slots = _slots(await workers_known(api.store), waiting.queue)
        counted = await _before(api, task, waiting.queue)
        before, more = min(counted, _COUNTED), counted > _COUNTED
        if waiting.reason == "busy":
            number = f"more than {before:,}" if more else f"{before:,}"
            message += f", {number} {'task is' if before == 1 else 'tasks are'} before it"
    return WhyView(
        state=task.state,
        reason=waiting.reason,
        message=message,
        task=ref,
        since=waiting.since,
        until=waiting.until,
        queue=waiting.queue,
        node_id=task.runs[-1].node_id if task.runs and waiting.reason == "lost" else "",
        slots=slots,
        before=before,
        before_capped=more,
        attempts=task.attempt,
    )


async def _before(api: Api, task: TaskDocument, queue: str) -> int:
    if task.published_at is None:
        return 0
    where = {
        "queue": queue,
        "state": TaskState.SCHEDULED,
        "published_at": Below(task.published_at),
    }
    return await api.store.count(TaskDocument, where, cap=_COUNTED + 1)


async def _last_line(api: Api, task: TaskDocument) -> str:
    where = {"task_id": task.id, "run": task.run}
    parts = await api.store.find(LogPartDocument, where, ("-number",), limit=1)
    lines = [line for part in parts for line in part.contents.split("\n") if line.strip()]
    return lines[-1] if lines else ""
