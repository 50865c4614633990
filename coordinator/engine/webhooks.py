"""Webhooks: decides which state changes they apply to, and creates the deliveries.

A delivery is stored before it is tried (job language spec, Webhook). The write that changes a state holds an intent
for it; following the intent makes the deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from coordinator.engine.evaluation import Evaluator, scope_for, wanted_vars, within_field
from coordinator.engine.evaluation import said as said_of
from coordinator.engine.flow import (
    Flow,
    bounds,
    change_job,
    change_task,
    evaluate,
    get,
    insert_many,
    note_event,
    now,
    read_vars,
    recall,
)
from coordinator.engine.new_documents import HOOK, intent
from shared.expressions import Budget, ExpressionError
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
    about = f"{document.id} {what.id}"
    scope = yield from _scope(job, event, about)
    work = partial(_addresses, job.definition.webhooks, event, summaries, scope, at)
    try:
        found = yield from evaluate(work, about, job.created_by.id)
    except ExpressionError as error:
        found = {}
        yield from note_event("webhook_not_evaluated", f"{job.id} webhooks: {error}")
    body = summaries["task"] if isinstance(document, TaskDocument) else summaries["job"]
    made: list[DeliveryDocument] = []
    for index, address in found.items():
        if isinstance(address, ExpressionError):
            said = redactor_of_job(job).redact(f"webhooks[{index}].{said_of(address)}")
            yield from note_event("webhook_not_evaluated", f"{job.id} {said}")
            continue
        url, headers = address
        made.append(
            DeliveryDocument(
                id=derived_id("webhook", document.id, what.id, index),
                job_id=job.id,
                user=job.created_by.id,
                url=url,
                headers=headers,
                secret=job.definition.webhooks[index].secret,
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


_Address = tuple[str, dict[str, str]]
"""The URL and the headers of a delivery."""


def _scope(job: JobDocument, event: str, about: str) -> Flow[dict[str, object] | None]:
    """Return the scope of addresses; None for a sub-job, whose were evaluated when it was made, in its parent's."""
    if job.parent_id is not None or job.detached_from is not None:
        return None
    hooks = [hook for hook in job.definition.webhooks if (hook.event or JOB_STATE) == event]
    texts = [text for hook in hooks for text in (hook.url, *hook.headers.values())]
    named = partial(wanted_vars, texts, ())
    wanted = yield from evaluate(named, about, job.created_by.id)
    variables = {} if wanted == () else (yield from read_vars(job, wanted, job.restarts))
    return scope_for(job, {}, variables)


def _addresses(
    hooks: list[language.Webhook],
    event: str,
    summaries: Mapping[str, dict[str, Any]],
    scope: Mapping[str, object] | None,
    at: Micros,
    budget: Budget,
) -> dict[int, _Address | ExpressionError]:
    """Return where each webhook that is asked for sends to, by its index, or what is wrong with it."""
    shown = {name: _both_spellings(summary) for name, summary in summaries.items()}
    asking = Evaluator(shown, at, 0, budget)
    addressing = Evaluator(scope, at, 0, budget) if scope is not None else None
    found: dict[int, _Address | ExpressionError] = {}
    for index, hook in enumerate(hooks):
        if (hook.event or JOB_STATE) != event:
            continue
        try:
            if not hook.if_ or within_field("if", asking.flag, hook.if_):
                found[index] = _address(hook, addressing)
        except ExpressionError as error:
            found[index] = error
    return found


def _address(hook: language.Webhook, evaluator: Evaluator | None) -> _Address:
    if evaluator is None:
        return hook.url, hook.headers
    headers = {
        name: within_field(f"headers.{name}", evaluator.render, value)
        for name, value in hook.headers.items()
    }
    return within_field("url", evaluator.render, hook.url), headers


_ACRONYMS = {"id": "ID", "parentId": "ParentID", "jobId": "JobID"}


def _both_spellings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary's fields under both spellings: `state` and `State`, `jobId` and `JobID`."""
    capital = {
        _ACRONYMS.get(name, name[:1].upper() + name[1:]): value for name, value in summary.items()
    }
    return {**summary, **capital}
