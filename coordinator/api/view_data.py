"""Loads what the views of jobs and tasks need: counts, results, and the secrets to redact."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from coordinator.api.context import Api, caller
from coordinator.api.waiting import waiting_jobs, waiting_tasks
from coordinator.store.port import ResultsTooLarge
from shared.errors import WrongKey
from shared.model.documents import (
    GUEST,
    Document,
    JobDocument,
    LogPartDocument,
    ScheduleDocument,
    TaskDocument,
    UserDocument,
)
from shared.model.queries import Above, In, Not
from shared.model.states import TaskKind, TaskState
from shared.model.views import (
    JobSummaryView,
    JobView,
    TaskView,
    View,
    WaitingView,
    hidden_values,
    job_summary,
    job_view,
    task_view,
)
from shared.redaction import EVERYTHING, LONG_TEXT, Redactor, is_heavy
from shared.threads import in_thread

_T = TypeVar("_T")

_D = TypeVar("_D", bound=Document)
_V = TypeVar("_V", bound=View)
_Made = TypeVar("_Made", JobDocument, ScheduleDocument)
MAX_EXECUTION: Final = 1000
"""Tasks in a job's own answer."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""About how many bytes of tasks or jobs an answer has; those beyond that are abridged."""
_CHUNK_BYTES: Final = 4 * 1024 * 1024
"""About how much of such is read at a time."""
_FIRST_CHUNK: Final = 8
_CHUNK: Final = 64
"""Tasks that are read at a time: each may be as large as a few MiB."""
_MAX_ANCESTORS: Final = 20


async def redactors(api: Api, jobs: Sequence[JobDocument]) -> list[Redactor]:
    """Return a redactor for each job: its secrets, and those of all jobs that it is a sub-job of."""
    above = await _ancestors(api, jobs)
    made = []
    for job in jobs:
        values = hidden_in(api, job, *above[job.id])
        made.append(await redactor_for(api, [*values, *job.opened().inherited_secrets]))
    return made


def hidden_in(api: Api, *documents: JobDocument | ScheduleDocument) -> Collection[str]:
    """Return the values that must not be shown of jobs or schedules: all there are, where one can't be read."""
    if any(each.locked for each in documents):
        return EVERYTHING
    definitions = [each.definition for each in documents]
    return [value for one in definitions for value in hidden_values(one, api.key_patterns)]


async def redactor_for(api: Api, values: Collection[str]) -> Redactor:
    """Return the redactor of values; where they are many it is made in a thread, and users take turns."""
    if is_heavy(values):
        async with api.redacting.turn(caller().actor.id):
            return await in_thread(Redactor, values, api.key_patterns)
    return Redactor(values, api.key_patterns)


async def redactor(api: Api, job: JobDocument) -> Redactor:
    """Return the redactor of one job."""
    return (await redactors(api, [job]))[0]


async def made_view(
    api: Api, redactor: Redactor, weigh: Callable[[], int], make: Callable[[], _T]
) -> _T:
    """Return the view that `make` makes, in a thread where many characters are to be searched, or for many secrets:
    `weigh` says how many, and is asked only where there is something to look for. Users take turns."""
    if not redactor.searches or (not redactor.heavy and weigh() <= LONG_TEXT):
        return make()
    async with api.redacting.turn(caller().actor.id):
        return await in_thread(make)


async def _ancestors(api: Api, jobs: Sequence[JobDocument]) -> dict[str, list[JobDocument]]:
    above: dict[str, list[JobDocument]] = {job.id: [] for job in jobs}
    at = {job.id: job for job in jobs if _made_by(job)}
    for _ in range(_MAX_ANCESTORS):
        if not at:
            break
        parents = await _parents(api, list(at.values()))
        at = {low: parents[job.id] for low, job in at.items() if job.id in parents}
        for low, parent in at.items():
            above[low].append(parent)
        at = {low: parent for low, parent in at.items() if _made_by(parent)}
    return above


def _made_by(job: JobDocument) -> str | None:
    return job.parent_id or job.detached_from


async def _parents(api: Api, jobs: Sequence[JobDocument]) -> dict[str, JobDocument]:
    made_by_tasks = {"id": In(tuple({made_by for job in jobs if (made_by := _made_by(job))}))}
    some = await api.store.find(TaskDocument, made_by_tasks, without=TaskDocument.heavy)
    tasks = {task.id: task for task in some}
    job_ids = list({task.job_id for task in tasks.values()})
    found = {job.id: job for job in await api.store.get_many(JobDocument, job_ids)}
    return {
        job.id: found[tasks[made_by].job_id]
        for job in jobs
        if (made_by := _made_by(job)) in tasks and tasks[made_by].job_id in found
    }


async def with_creators(api: Api, documents: Sequence[_Made]) -> list[_Made]:
    """Return jobs or schedules that tell whether whoever submitted them is disabled now."""
    ids = {document.created_by.id for document in documents} - {GUEST.id}
    users = await api.store.get_many(UserDocument, list(ids)) if ids else []
    disabled = [user.actor for user in users if user.disabled]
    return [
        replace(document, created_by=replace(document.created_by, disabled=True))
        if any(map(document.created_by.is_same, disabled))
        else document
        for document in documents
    ]


async def summaries(
    api: Api, jobs: Sequence[JobDocument], waiting: Mapping[str, WaitingView]
) -> list[JobSummaryView]:
    """Return jobs in short. `waiting`: why nothing of those that are not over runs."""
    return [
        await made_view(
            api,
            redactor,
            partial(size_of_texts, job),
            partial(job_summary, job, redactor, waiting.get(job.id)),
        )
        for job, redactor in zip(
            await with_creators(api, jobs), await redactors(api, jobs), strict=True
        )
    ]


async def read_views(
    ids: Sequence[str],
    read: Callable[[Sequence[str]], Awaitable[list[_D]]],
    show: Callable[[Sequence[_D]], Awaitable[list[_V]]],
    abridge: Callable[[_V], _V],
) -> list[_V]:
    """Return views of documents, of which few are read at a time where they are large. Views that would make the answer
    too large are abridged."""
    views: list[_V] = []
    left, at, size = MAX_ANSWER_BYTES, 0, _FIRST_CHUNK
    while at < len(ids):
        found = await read(ids[at : at + size])
        at += size
        for view in await show(found):
            weight = len(msgspec.json.encode(view))
            views.append(view if weight <= left else abridge(view))
            left -= weight if weight <= left else 0
        read_bytes = len(msgspec.msgpack.encode([each.opened() for each in found]))
        size = max(1, min(_CHUNK, _CHUNK_BYTES * size // read_bytes))
    return views


async def summary(api: Api, job: JobDocument) -> JobSummaryView:
    """Return one job in short."""
    return (await summaries(api, [job], await waiting_jobs(api, [job])))[0]


async def task_views(
    api: Api,
    tasks: Sequence[TaskDocument],
    redactor: Redactor,
    abridged: Collection[str] = (),
) -> list[TaskView]:
    """Return tasks of one job, with their figures. `abridged`: ids of those that were read without what is heavy."""
    children = await _children(api, tasks, abridged)
    stored = await stored_parts(api, tasks)
    waiting = await waiting_tasks(api, tasks)

    def view(task: TaskDocument) -> TaskView:
        return task_view(
            task,
            redactor,
            counts=children.get(task.id, _Children()).states,
            begun=children.get(task.id, _Children()).begun,
            stored_parts=stored.get(task.id, 0),
            waiting=waiting.get(task.id),
            abridged=task.id in abridged,
        )

    return await made_view(
        api, redactor, lambda: sum(map(_weight, tasks)), lambda: list(map(view, tasks))
    )


class _Children(msgspec.Struct, frozen=True):
    """How many of a composite are in each state, by their newest attempt, and how many have had their turn."""

    states: Mapping[str, int] = {}
    begun: int = 0


async def _children(
    api: Api, tasks: Sequence[TaskDocument], abridged: Collection[str]
) -> dict[str, _Children]:
    """Return what became of the children of each composite."""
    composites = [task for task in tasks if task.kind in (TaskKind.PARALLEL, TaskKind.EACH)]

    async def count(parents: Collection[str], **where: object) -> dict[str, int]:
        if not parents:
            return {}
        asked = {"parent_id": In(tuple(parents)), **where}
        return await api.store.group_count(TaskDocument, asked, "parent_id")

    states: dict[str, Counter[str]] = {task.id: Counter() for task in composites}
    for state in TaskState:
        for parent, number in (await count(states, state=state)).items():
            states[parent][state] = number
    cancelled = [parent for parent, found in states.items() if found[TaskState.CANCELLED]]
    never = await count(cancelled, state=TaskState.CANCELLED, evaluated_at=None)
    retried = [task.id for task in composites if task.id in abridged or _retries(task)]
    again = await count(retried, attempt=Above(1))  # each after an attempt that failed
    later = await count(retried, attempt=Above(1), evaluated_at=None)
    children: dict[str, _Children] = {}
    for parent, found in states.items():
        found[TaskState.FAILED] -= again.get(parent, 0)
        waiting = found[TaskState.CREATED] + never.get(parent, 0) - later.get(parent, 0)
        children[parent] = _Children(+found, found.total() - waiting)
    return children


def _retries(task: TaskDocument) -> bool:
    """Return whether a child of a composite may have several attempts."""
    definition = task.opened().definition
    each, parallel = definition.each, definition.parallel
    inner = [each.task] if each and each.task else parallel.tasks if parallel else []
    return any(child.retry for child in inner)


async def stored_parts(api: Api, tasks: Sequence[TaskDocument]) -> dict[str, int]:
    """Return how many parts of its counted run's log are stored, for each task that says how many."""
    by_run: dict[int, list[str]] = defaultdict(list)
    for task in tasks:
        if task.log_parts:
            by_run[task.run].append(task.id)
    counts: dict[str, int] = {}
    for run, ids in by_run.items():
        where = {"task_id": In(tuple(ids)), "run": run}
        counts |= await api.store.group_count(LogPartDocument, where, "task_id")
    return counts


def in_order(tasks: Sequence[TaskDocument]) -> list[TaskDocument]:
    """Return tasks by position, then start; those that have not begun come last in their position."""
    return sorted(
        tasks,
        key=lambda task: (
            task.position,
            task.started_at is None,
            task.started_at or 0,
            task.created_at,
            task.index,
            task.id,
        ),
    )


ReadPage = Callable[[int, int, Sequence[str]], Awaitable[list[TaskDocument]]]
"""Reads so many tasks behind so many others, without some fields."""


async def read_bounded(read: ReadPage, most: int) -> tuple[list[TaskDocument], set[str]]:
    """Return at most `most` tasks, and the ids of those read without `TaskDocument.heavy`, because those before them
    are large enough for an answer."""
    found: list[TaskDocument] = []
    abridged: set[str] = set()
    left, size = MAX_ANSWER_BYTES, _FIRST_CHUNK
    while len(found) < most:
        short = left <= 0
        limit = most - len(found) if short else min(size, most - len(found))
        chunk = await read(len(found), limit, TaskDocument.heavy if short else ())
        found += chunk
        if short:
            abridged.update(task.id for task in chunk)
        if short or len(chunk) < limit:
            break
        weight = sum(map(_weight, chunk))
        left -= weight
        size = min(_CHUNK, max(1, left * len(chunk) // max(1, weight)))
    return found, abridged


async def read_these(
    api: Api, tasks: Sequence[TaskDocument]
) -> tuple[list[TaskDocument], set[str]]:
    """Return tasks that were read without `TaskDocument.heavy` as `read_bounded` does."""

    async def read(skip: int, limit: int, without: Sequence[str]) -> list[TaskDocument]:
        some = tasks[skip : skip + limit]
        if without:
            return list(some)
        return await api.store.get_many(TaskDocument, [task.id for task in some])

    return await read_bounded(read, len(tasks))


async def execution(api: Api, job: JobDocument) -> tuple[list[TaskDocument], Collection[str], bool]:
    """Return the newest tasks of a job in order, the ids of those that are abridged, and whether there are more."""
    newest, abridged = await read_bounded(
        lambda skip, limit, without: api.store.find(
            TaskDocument,
            {"job_id": job.id},
            order=("-position", "-created_at"),
            limit=limit,
            skip=skip,
            without=without,
        ),
        MAX_EXECUTION + 1,
    )
    return in_order(newest[:MAX_EXECUTION]), abridged, len(newest) > MAX_EXECUTION


def _weight(task: TaskDocument) -> int:
    task = task.opened()
    texts = msgspec.msgpack.encode((task.evaluated or task.definition, task.scope))
    return len(texts) + len(task.result or "")


async def _results(api: Api, job: JobDocument, *, few: bool) -> dict[str, str]:
    """Return the results of a job by name: those of its last tasks, where all would be too large for an answer. `few`:
    they are known not to be many."""
    where = {"job_id": job.id, "state": TaskState.COMPLETED, "var": Not(None)}
    read = partial(api.store.vars, job.id, restarts=job.restarts, began=job.restarted_from)
    if few or await api.store.count(TaskDocument, where, cap=_CHUNK) < _CHUNK:
        with suppress(ResultsTooLarge):
            return await read(None, most=MAX_ANSWER_BYTES)
    last, abridged = await read_bounded(
        lambda skip, limit, without: api.store.find(
            TaskDocument,
            where,
            order=("-position", "-created_at"),
            limit=limit,
            skip=skip,
            without=without or ("definition", "evaluated", "scope"),
        ),
        MAX_EXECUTION,
    )
    return await read([task.var for task in last if task.var and task.id not in abridged])


async def whole_job(api: Api, job: JobDocument, *, executed: bool = True) -> JobView:
    """Return all of a job, as `GET /jobs/{id}` shows it; `executed`: with its execution."""
    (job,) = await with_creators(api, [job])
    its_redactor = await redactor(api, job)
    tasks, abridged, truncated = await execution(api, job) if executed else ([], (), False)
    shown = await task_views(api, tasks, its_redactor, abridged)
    results: dict[str, str] = {}
    with suppress(WrongKey):  # the tasks whose results can't be read say so
        results = await _results(api, job, few=executed and not abridged and not truncated)
    waiting = (await waiting_jobs(api, [job])).get(job.id)
    view = partial(
        job_view,
        job,
        its_redactor,
        execution=shown,
        truncated=truncated,
        waiting=waiting,
        results=results,
    )
    return await made_view(
        api, its_redactor, lambda: size_of_texts(job) + sum(map(len, results.values())), view
    )


def size_of_texts(document: JobDocument | ScheduleDocument) -> int:
    """Return about how many characters of a job or schedule are searched for secrets."""
    document = document.opened()
    texts = len(msgspec.msgpack.encode((document.definition, document.description)))
    if isinstance(document, JobDocument):
        texts += len(document.result or "") + len(document.error or "")
    return texts
