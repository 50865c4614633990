"""Webhooks: decides which state changes they apply to, and creates the deliveries.

A delivery is stored before it is tried (job language spec, Webhook). The write that changes a state holds an intent
for it; following the intent makes the deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from typing import Any

import msgspec

from coordinator.engine.evaluation import (
    Evaluator,
    kept_error,
    scope_for,
    wanted_vars,
    within_field,
)
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
from shared.model.views.redacted import redactor_of_job, rfc3339, told

JOB_STATE = "job.StateChange"
JOB_PROGRESS = "job.Progress"
TASK_STATE = "task.StateChange"
TASK_PROGRESS = "task.Progress"

TOLD_JOB_STATES = frozenset({JobState.PENDING, JobState.RUNNING}) | JOB_ENDED
TOLD_TASK_STATES = frozenset({TaskState.SCHEDULED, TaskState.RUNNING}) | TASK_ENDED

LONGEST_URL = 8 * 1024
LONGEST_HEADERS = 64 * 1024
"""Characters of an evaluated address: each delivery holds one, and very many are read at once."""


def wants(job: JobDocument | None, event: str) -> bool:
    """Return whether a webhook of `job` is for `event`: none of one that can't be read."""
    return job is not None and any(
        (hook.event or JOB_STATE) == event for hook in job.opened().definition.webhooks
    )


def state_hook(
    job: JobDocument | None, event: str, state: str, at: Micros, turn: int = 0
) -> tuple[Intent, ...]:
    """Return the intent that a change to `state` must hold: none where nobody listens. `turn`: the restarts of a job or
    the runs of a task, with which its states begin anew."""
    told = TOLD_JOB_STATES if event == JOB_STATE else TOLD_TASK_STATES
    if state not in told or not wants(job, event):
        return ()
    return (_hook(event, state, at, turn),)


def progress_hook(
    job: JobDocument | None, event: str, at: Micros, state: str = TaskState.RUNNING
) -> tuple[Intent, ...]:
    """Return the intent for a webhook that hears of progress."""
    if not wants(job, event):
        return ()
    return (_hook(event, state, at),)


def _hook(event: str, state: str, at: Micros, turn: int = 0) -> Intent:
    return intent(HOOK, at, event=event, state=state, stamp=str(at), turn=turn)


def deliver(document: Document, what: Intent) -> Flow[list[Document]]:
    """Follow a hook intent: store a delivery for each webhook that is for it, after those of the events before."""
    assert isinstance(document, JobDocument | TaskDocument)
    job = document if isinstance(document, JobDocument) else (yield from recall(document.job_id))
    if job is not None:
        for earlier in _earlier(document, what):
            yield from _store_deliveries(job, document, earlier)
        yield from _store_deliveries(job, document, what)
    change = change_job if isinstance(document, JobDocument) else change_task
    yield from change(document.id, {}, {}, drop=(what.id,))
    return []


def _earlier(document: JobDocument | TaskDocument, what: Intent) -> list[Intent]:
    """Return the hooks of the same event that a document got before this one, and that nobody has followed yet."""
    before = takewhile(lambda each: each.id != what.id, document.then)
    event = what.args["event"]
    return [each for each in before if each.do == HOOK and each.args["event"] == event]


def _sequence(document: JobDocument | TaskDocument, what: Intent) -> int:
    """Return the place of an event among those that the webhooks for it hear of a job or task: later ones have higher
    numbers, whoever tells them and when."""
    state, turn = str(what.args["state"]), int(what.args.get("turn", 0))
    if what.args["event"] in (JOB_PROGRESS, TASK_PROGRESS):
        return int(what.args["stamp"])
    if isinstance(document, JobDocument):
        return 1 if state == JobState.PENDING else 2 * turn + 2 + (state in JOB_ENDED)
    if state in TASK_ENDED:
        return 3 * document.run + 2
    return 3 * turn + 1 if state == TaskState.SCHEDULED else max(1, 3 * turn - 1)


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
        said = kept_error(job, f"webhooks: {error}")
        yield from note_event("webhook_not_evaluated", f"{job.id} {said}")
    sequence = _sequence(document, what)
    body = told(summaries["task" if isinstance(document, TaskDocument) else "job"])
    body |= {"sequence": sequence, "occurredAt": rfc3339(int(what.args["stamp"]))}
    encoded = msgspec.json.encode(body).decode()
    progress = event in (JOB_PROGRESS, TASK_PROGRESS) and state == TaskState.RUNNING
    made: list[DeliveryDocument] = []
    for index, address in found.items():
        if isinstance(address, ExpressionError):
            said = kept_error(job, f"webhooks[{index}].{said_of(address)}")
            yield from note_event("webhook_not_evaluated", f"{job.id} {said}")
            continue
        url, headers = address
        made.append(
            DeliveryDocument(
                id=derived_id("webhook", document.id, what.id, index),
                job_id=job.id,
                user=job.created_by.id,
                event=event,
                url=url,
                headers=headers,
                secret=job.definition.webhooks[index].secret,
                body=encoded,
                line=derived_id("line", document.id, index),
                sequence=sequence,
                progress=progress,
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
    results = yield from read_vars(job, wanted, job.restarts)
    return scope_for(job, {}, results)


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
    render = evaluator.render if evaluator else str
    url = within_field("url", render, hook.url)
    headers = {
        name: within_field(f"headers.{name}", render, value) for name, value in hook.headers.items()
    }
    if len(url) > LONGEST_URL:
        raise ExpressionError(f"url: more than {LONGEST_URL:,} characters")
    if sum(len(name) + len(value) for name, value in headers.items()) > LONGEST_HEADERS:
        raise ExpressionError(f"headers: more than {LONGEST_HEADERS:,} characters in all")
    return url, headers


_ACRONYMS = {"id": "ID", "parentId": "ParentID", "jobId": "JobID"}


def _both_spellings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary's fields under both spellings: `state` and `State`, `jobId` and `JobID`."""
    capital = {
        _ACRONYMS.get(name, name[:1].upper() + name[1:]): value for name, value in summary.items()
    }
    return {**summary, **capital}
