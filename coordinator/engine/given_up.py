"""What becomes of work that could not be done at any of its tries (engine spec, Due work: Tries).

It ends with a reason that its user sees. What cancels, withdraws or removes is never given up. The documents may be
ones that can't be read whole (sealed with a key that is gone), so nothing here reads them back.
"""

from __future__ import annotations

from typing import Final

from coordinator.engine import transitions
from coordinator.engine.evaluation import kept_error
from coordinator.engine.flow import Flow, apply, job_change, note_event, now, task_change
from coordinator.engine.new_documents import (
    ABANDON,
    BEGIN,
    DELETE,
    ENDED_INTENT,
    EVALUATE,
    EXPAND,
    FINISH,
    HOOK,
    RESTART,
    intent,
)
from coordinator.engine.transitions import JobMove, TaskMove
from coordinator.engine.webhook_triggers import JOB_STATE, TASK_STATE, state_hook
from shared.model.documents import Document, Intent, JobDocument, TaskDocument
from shared.model.states import JOB_ACTIVE, TASK_ACTIVE, JobState, TaskState

TRIES: Final = 6
"""How often work is taken up again before it is given up."""

NEVER_GIVEN_UP: Final = frozenset({FINISH, ABANDON, DELETE})

_WORDS: Final = {
    BEGIN: "the job could not be begun",
    RESTART: "the job could not be restarted",
    EVALUATE: "the task could not be started",
    EXPAND: "what is below the task could not be made",
    ENDED_INTENT: "what follows the task could not be made",
}
DIED: Final = "each process that tried it died"


def is_given_up(what: Intent) -> bool:
    """Return whether an intent was tried as often as it may be."""
    return what.tries > TRIES and what.do not in NEVER_GIVEN_UP


def give_up(document: Document, what: Intent, job: JobDocument | None) -> Flow[None]:
    """End what an intent belongs to, with the reason. `job`: the job of the document, None where it can't be read:
    then no webhook hears of it."""
    yield from note_event("given_up", f"{document.id} {what.do}")
    reason = f"{_WORDS.get(what.do, what.do)}, tried {TRIES} times: {what.error or DIED}"
    if isinstance(document, JobDocument):
        if what.do != HOOK:
            yield from _fail_job(document.id, document.restarts, reason, job)
        yield from apply(job_change(document.id, {}, {}, drop=(what.id,)))
    elif isinstance(document, TaskDocument):
        if what.do == ENDED_INTENT:
            said = f"task {document.name!r}: {reason}"
            yield from _fail_job(document.job_id, document.restarts, said, job)
        elif what.do != HOOK:
            yield from _fail_task(document, reason, job)
        yield from apply(task_change(document.id, {}, {}, drop=(what.id,)))


def _fail_job(id: str, restarts: int, reason: str, job: JobDocument | None) -> Flow[None]:
    at = yield from now()
    move = JobMove(tuple(JOB_ACTIVE), JobState.FAILED)
    fields = transitions.job_end(move.to, at, error=kept_error(job, reason))
    hooks = state_hook(job, JOB_STATE, move.to, at, restarts)
    add = (intent(FINISH, at, restarts=restarts), *hooks)
    yield from apply(job_change(id, {"restarts": restarts}, fields, move=move, add=add))


def _fail_task(task: TaskDocument, reason: str, job: JobDocument | None) -> Flow[None]:
    at = yield from now()
    move = TaskMove(tuple(TASK_ACTIVE), TaskState.FAILED)
    fields = transitions.task_end(move.to, at, error=kept_error(job, reason))
    add = (intent(ENDED_INTENT, at), *state_hook(job, TASK_STATE, move.to, at))
    yield from apply(task_change(task.id, {}, fields, move=move, add=add))
