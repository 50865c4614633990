"""Webhooks: decides which state changes they apply to, and creates the deliveries.

A delivery is stored before it is tried (job language spec, Webhook). The write that changes a state holds an intent
for it; following the intent makes the deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from coordinator.engine.evaluation import Evaluator, scope_for, wanted_vars
from coordinator.engine.flow import (
    Flow,
    bounds,
    change_job,
    change_task,
    get,
    insert_many,
    note_event,
    now,
    read_vars,
    recall,
)
from coordinator.engine.new_documents import HOOK, intent
from shared.expressions import ExpressionError
from shared.ids import derived_id
from shared.model import language
from shared.model.documents import (
    DeliveryDocument,
    Document,
    Intent,
    JobDocument,
    Micros,
    TaskDocument,
)
from shared.model.states import JOB_ENDED, TASK_ENDED, JobState, TaskState
from shared.model.views import as_plain, job_summary, task_summary
from shared.model.views.redacting import redactor_of_job

JOB_STATE = "job.StateChange"
JOB_PROGRESS = "job.Progress"
TASK_STATE = "task.StateChange"
TASK_PROGRESS = "task.Progress"

TOLD_JOB_STATES = frozenset({JobState.PENDING, JobState.RUNNING}) | JOB_ENDED
TOLD_TASK_STATES = frozenset({TaskState.SCHEDULED, TaskState.RUNNING}) | TASK_ENDED


def wants(job: JobDocument | None, event: str) -> bool:
    """Return whether a webhook of `job` is for `event`."""
    return job is not None and any(
        (hook.event or JOB_STATE) == event for hook in job.definition.webhooks
    )


def state_hook(
    job: JobDocument | None, event: str, state: str, at: Micros, stamp: str = ""
) -> tuple[Intent, ...]:
    """Return the intent that a change to `state` must hold: none where nobody listens."""
    told = TOLD_JOB_STATES if event == JOB_STATE else TOLD_TASK_STATES
    if state not in told or not wants(job, event):
        return ()
    return (intent(HOOK, at, event=event, state=state, stamp=stamp or str(at)),)


def progress_hook(job: JobDocument | None, event: str, at: Micros) -> tuple[Intent, ...]:
    """Return the intent for a webhook that hears of progress."""
    if not wants(job, event):
        return ()
    return (intent(HOOK, at, event=event, state=TaskState.RUNNING, stamp=str(at)),)


def deliver(document: Document, what: Intent) -> Flow[list[Document]]:
    """Follow a hook intent: store a delivery for each webhook that is for it."""
    assert isinstance(document, JobDocument | TaskDocument)
    job = document if isinstance(document, JobDocument) else (yield from recall(document.job_id))
    if job is not None:
        yield from _store_deliveries(job, document, what)
    change = change_job if isinstance(document, JobDocument) else change_task
    yield from change(document.id, {}, {}, drop=(what.id,))
    return []


def _store_deliveries(
    job: JobDocument, document: JobDocument | TaskDocument, what: Intent
) -> Flow[None]:
    event, state = str(what.args["event"]), str(what.args["state"])
    present = (
        job if isinstance(document, JobDocument) else ((yield from get(JobDocument, job.id)) or job)
    )
    summaries = _summaries(present, document, state, (yield from bounds()).redaction_keys)
    at = yield from now()
    made: list[DeliveryDocument] = []
    for index, hook in enumerate(job.definition.webhooks):
        if (hook.event or JOB_STATE) != event:
            continue
        try:
            if not _asked_for(hook, summaries, at):
                continue
            url, headers = yield from _address(job, hook, at)
        except ExpressionError as error:
            said = redactor_of_job(job).redact(str(error))
            yield from note_event("webhook_not_evaluated", f"{job.id} webhooks[{index}]: {said}")
            continue
        body = summaries["task"] if isinstance(document, TaskDocument) else summaries["job"]
        made.append(
            DeliveryDocument(
                id=derived_id("webhook", document.id, what.id, index),
                job_id=job.id,
                url=url,
                headers=headers,
                secret=hook.secret,
                body=msgspec.json.encode(body).decode(),
                due_at=at,
                created_at=at,
            )
        )
    if made:
        yield from insert_many(made)


def _summaries(
    job: JobDocument, document: JobDocument | TaskDocument, state: str, keys: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    redactor = redactor_of_job(job, keys)
    if isinstance(document, JobDocument):
        document = msgspec.structs.replace(document, state=state)
        return {"job": as_plain(job_summary(document, redactor))}
    document = msgspec.structs.replace(document, state=state)
    return {
        "job": as_plain(job_summary(job, redactor)),
        "task": as_plain(task_summary(document, redactor)),
    }


def _asked_for(hook: language.Webhook, summaries: Mapping[str, dict[str, Any]], at: Micros) -> bool:
    if not hook.if_:
        return True
    scope = {name: _both_spellings(summary) for name, summary in summaries.items()}
    answer = Evaluator(scope, at, 0).value(hook.if_)
    if not isinstance(answer, bool):
        raise ExpressionError(f"a webhook's `if` must be true or false, not {answer!r}")
    return answer


_ACRONYMS = {"id": "ID", "parentId": "ParentID", "jobId": "JobID"}


def _both_spellings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary's fields under both spellings: `state` and `State`, `jobId` and `JobID`."""
    capital = {
        _ACRONYMS.get(name, name[:1].upper() + name[1:]): value for name, value in summary.items()
    }
    return {**summary, **capital}


def _address(
    job: JobDocument, hook: language.Webhook, at: Micros
) -> Flow[tuple[str, dict[str, str]]]:
    """Return where a delivery goes; those of a sub-job were evaluated when it was made, in its parent's scope."""
    if job.parent_id is not None or job.detached_from is not None:
        return hook.url, hook.headers
    wanted = wanted_vars([hook.url, *hook.headers.values()])
    variables = {} if wanted == () else (yield from read_vars(job, wanted, job.restarts))
    evaluator = Evaluator(scope_for(job, {}, variables), at, 0)
    headers = {name: evaluator.render(value) for name, value in hook.headers.items()}
    return evaluator.render(hook.url), headers
