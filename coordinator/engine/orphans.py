"""What is below something that ended, was restarted, or is gone, and that nobody has withdrawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import msgspec

from coordinator.engine.flow import Flow, find, get, note_event, now, standing
from coordinator.engine.job_ends import goes_on
from coordinator.engine.transitions import any_state
from coordinator.engine.withdrawal import withdraw
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    JobDocument,
    Micros,
    TaskDocument,
)
from shared.model.queries import Above, Below, In, Not, Where
from shared.model.states import JOB_ACTIVE, JOB_ENDED, Hold, JobState

ORPHANS_AT_ONCE = 500
"""Jobs, and tasks, looked at in one sweep of a kind."""

RECENT_ENDS: Micros = 600 * MICROS_PER_SECOND
"""Jobs that ended in this time are looked at for what is still open below them."""


class OrphanRounds(msgspec.Struct):
    """How far the looks have come that go round: when the jobs were made that were looked at last."""

    restarted: Micros = 0
    subjobs: Micros = 0


# --- tasks --------------------------------------------------------------------------------------------------------


def still_wanted(tasks: Sequence[TaskDocument]) -> Flow[tuple[list[TaskDocument], list[Document]]]:
    """Return those of `tasks` whose jobs go on with their number of restarts; withdraw the others, and return what
    follows from that."""
    jobs = yield from _jobs({task.job_id for task in tasks})
    stay: list[TaskDocument] = []
    follow: list[Document] = []
    for task in tasks:
        job = jobs.get(task.job_id)
        if goes_on(job, task.restarts):
            stay.append(task)
        else:
            follow += yield from withdraw([task], gone=job is None)
            yield from note_event("swept_unwanted", task.id)
    return stay, follow


def open_under_ended() -> Flow[list[Document]]:
    """Cancel what is open below jobs that have ended lately."""
    at = yield from now()
    where = {"ended_at": Above(at - RECENT_ENDS)}
    jobs = yield from find(
        JobDocument, where, order=("-ended_at",), limit=ORPHANS_AT_ONCE, without=JobDocument.heavy
    )
    return (yield from _withdraw_open("swept_open_under_ended", jobs, of_last=True))


def of_lower_restarts(rounds: OrphanRounds) -> Flow[list[Document]]:
    """Cancel what is open below jobs that were restarted, and is of before."""
    where = {
        "state": JobState.RUNNING,
        "restarts": Above(0),
        "created_at": Above(rounds.restarted),
    }
    jobs = yield from find(
        JobDocument, where, order=("created_at",), limit=ORPHANS_AT_ONCE, without=JobDocument.heavy
    )
    rounds.restarted = _next(jobs, rounds.restarted)
    return (yield from _withdraw_open("swept_lower_restarts", jobs, of_last=False))


def held_below(owner: str, each: TaskDocument | None) -> Flow[list[Document]]:
    """Withdraw what waits for a slot of an `each` that has ended, or is gone, however long ago; an intent of it, or of
    its job, says that somebody is about that."""
    job = (yield from standing(each.job_id)) if each is not None else None
    if any(document is not None and document.then for document in (each, job)):
        return []
    where = {"slot_of": owner, "hold": Hold.CONCURRENCY}
    return (yield from _withdraw_active("swept_open_under_ended", where, gone=each is None))


def _withdraw_open(
    what: str, jobs: Sequence[JobDocument], *, of_last: bool
) -> Flow[list[Document]]:
    """Withdraw what is open below jobs that nobody is about, and is of before their last restart, or of that too: not
    of a later one, should they have been restarted since they were read."""
    by_restarts: dict[int, list[str]] = defaultdict(list)
    for job in jobs:
        if not job.then:
            by_restarts[job.restarts + of_last].append(job.id)
    follow: list[Document] = []
    for restarts, ids in by_restarts.items():
        where = {"job_id": In(tuple(ids)), "restarts": Below(restarts), "open": True}
        follow += yield from _withdraw_active(what, where)
    return follow


def _withdraw_active(what: str, where: Where, *, gone: bool = False) -> Flow[list[Document]]:
    """Withdraw the active tasks that match, parents first; note it of each job."""
    active = {**where, "active": True}
    found = yield from find(TaskDocument, active, limit=ORPHANS_AT_ONCE, without=TaskDocument.heavy)
    for job_id in sorted({task.job_id for task in found}):
        yield from note_event(what, job_id)
    return (yield from withdraw(sorted(found, key=lambda task: task.depth), gone=gone))


# --- sub-jobs -----------------------------------------------------------------------------------------------------


def lost_subjob(job: JobDocument) -> Flow[list[Document] | None]:
    """Withdraw a sub-job that nobody waits for; None where somebody does. This is the second look of whoever begins it:
    whoever inserted it may have died before it could look again."""
    parent = (yield from get(TaskDocument, job.parent_id)) if job.parent_id else None
    above = (yield from standing(parent.job_id)) if parent is not None else None
    if _waits(job, parent, above):
        return None
    return (yield from withdraw([job], gone=_gone(parent, above)))


def lost_subjobs(rounds: OrphanRounds) -> Flow[list[Document]]:
    """Withdraw active sub-jobs that nobody waits for."""
    where = {
        "state": any_state(JOB_ACTIVE),
        "parent_id": Not(None),
        "created_at": Above(rounds.subjobs),
    }
    found = yield from find(
        JobDocument, where, order=("created_at",), limit=ORPHANS_AT_ONCE, without=JobDocument.heavy
    )
    rounds.subjobs = _next(found, rounds.subjobs)
    quiet = [job for job in found if not job.then]
    ids = In(tuple({job.parent_id for job in quiet}))
    tasks = (
        (yield from find(TaskDocument, {"id": ids}, without=TaskDocument.heavy)) if quiet else []
    )
    parents = {task.id: task for task in tasks}
    jobs = yield from _jobs({task.job_id for task in tasks})
    follow: list[Document] = []
    for job in quiet:
        parent = parents.get(job.parent_id or "")
        above = jobs.get(parent.job_id) if parent is not None else None
        if _waits(job, parent, above) or _withdrawing(parent, above):
            continue
        whole = yield from get(JobDocument, job.id)
        if whole is not None and whole.restarts == job.restarts:
            yield from note_event("swept_lost_subjob", job.id)
            follow += yield from withdraw([whole], gone=_gone(parent, above))
    return follow


def _waits(job: JobDocument, parent: TaskDocument | None, above: JobDocument | None) -> bool:
    """Return whether a sub-job may go on. One that a user restarted after its parent task had ended goes on alone,
    unless the job above was restarted too."""
    if parent is None or above is None or _gone(parent, above):
        return False
    if parent.restarts < above.restarts:
        return False
    return job.restarts > 0 or (parent.active and above.state not in JOB_ENDED)


def _gone(parent: TaskDocument | None, above: JobDocument | None) -> bool:
    return parent is None or above is None or above.deleted_at is not None


def _withdrawing(parent: TaskDocument | None, above: JobDocument | None) -> bool:
    """Return whether somebody is about it: it is an intent of what is above."""
    return any(document is not None and document.then for document in (parent, above))


def _jobs(ids: Collection[str]) -> Flow[dict[str, JobDocument]]:
    if not ids:
        return {}
    found = yield from find(JobDocument, {"id": In(tuple(ids))}, without=JobDocument.heavy)
    return {job.id: job for job in found}


def _next(jobs: Sequence[JobDocument], after: Micros) -> Micros:
    """Return after which time the next look goes on: those made at the same time as the last come again, if they were
    not all that this look took."""
    if len(jobs) < ORPHANS_AT_ONCE:
        return 0
    last = jobs[-1].created_at
    return last - 1 if last - 1 > after else last
