"""The table of intents and their flows, and the loop that carries intents out until none is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from coordinator.engine import (
    composites,
    job_lifecycle,
    removal,
    task_ends,
    task_start,
    webhook_triggers,
    withdrawal,
)
from coordinator.engine.flow import Flow, Unread, get, note_event
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
)
from shared.model.documents import Document, Intent, JobDocument, TaskDocument

FollowUp = Callable[[Document, Intent], Flow[list[Document]]]

FOLLOW_UPS: dict[tuple[type[Document], str], FollowUp] = {
    (JobDocument, BEGIN): job_lifecycle.begin_job,
    (JobDocument, RESTART): job_lifecycle.restarted,
    (JobDocument, FINISH): job_lifecycle.finish,
    (JobDocument, DELETE): removal.remove_job,
    (JobDocument, HOOK): webhook_triggers.deliver,
    (TaskDocument, EVALUATE): task_start.evaluate_task,
    (TaskDocument, EXPAND): composites.expand,
    (TaskDocument, ENDED_INTENT): task_ends.task_ended,
    (TaskDocument, HOOK): webhook_triggers.deliver,
    (TaskDocument, ABANDON): withdrawal.abandon,
}


def follow(
    documents: Sequence[Document], enough: Callable[[], bool] = lambda: False
) -> Flow[list[Document]]:
    """Follow the intents of these documents, and of all that come of that. Return what is left where, after one of
    them, it is `enough`."""
    waiting = deque(documents)
    while waiting:
        document = yield from _whole(waiting.popleft())
        for what in document.then:
            follow_up = FOLLOW_UPS.get((type(document), what.do))
            if follow_up is None:
                yield from note_event("intent_of_another_version", f"{document.id} {what.do}")
                continue
            waiting.extend((yield from follow_up(document, what)))
        if enough():
            break
    return list(waiting)


def _whole(document: Document) -> Flow[Document]:
    """Return a document to follow, read where it was not yet; nothing follows from one that has gone."""
    if not isinstance(document, Unread):
        return document
    return (yield from get(TaskDocument, document.id)) or document
