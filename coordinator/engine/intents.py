"""What each intent asks for, in one table; and following them, one after another, until nothing follows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from coordinator.engine import composites, job_lifecycle, task_ends, task_start, webhooks
from coordinator.engine.flow import Flow, note
from coordinator.engine.new_documents import (
    ABANDON,
    BEGIN,
    ENDED,
    EVALUATE,
    EXPAND,
    FINISH,
    HOOK,
    RESTART,
)
from shared.model.documents import Document, Intent, Job, Task

FollowUp = Callable[[Document, Intent], Flow[list[Document]]]

FOLLOW_UPS: dict[tuple[type[Document], str], FollowUp] = {
    (Job, BEGIN): job_lifecycle.begin,
    (Job, RESTART): job_lifecycle.restarted,
    (Job, FINISH): job_lifecycle.finish,
    (Job, HOOK): webhooks.deliver,
    (Task, EVALUATE): task_start.evaluate,
    (Task, EXPAND): composites.expand,
    (Task, ENDED): task_ends.task_ended,
    (Task, HOOK): webhooks.deliver,
    (Task, ABANDON): job_lifecycle.abandon,
}


def follow(documents: Sequence[Document]) -> Flow[None]:
    """Follow the intents of these documents, and of all that come of that."""
    waiting = deque(documents)
    while waiting:
        document = waiting.popleft()
        for what in document.then:
            follow_up = FOLLOW_UPS.get((type(document), what.do))
            if follow_up is None:
                yield from note("intent_of_another_version", f"{document.id} {what.do}")
                continue
            waiting.extend((yield from follow_up(document, what)))
