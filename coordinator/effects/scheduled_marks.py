"""SCHEDULED marks on their way: a task's grant that comes before the mark is written takes it with it."""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.engine import states
from coordinator.store.port import Change
from shared.model.documents import Micros, Task
from shared.model.queries import D


class Marks:
    """The marks of tasks that this coordinator publishes, from then until they are written or their task is granted:
    one write less, or two, for each task that a free slot takes at once."""

    def __init__(self) -> None:
        self._marks: dict[str, Change[Task]] = {}

    def begin(self, task: Task, at: Micros) -> Change[Task]:
        """Return the mark of a task that is about to be published. A claim says that the broker has it, confirmed or
        not."""
        mark = Change(
            kind=Task,
            id=task.id,
            where={"state": states.PENDING, "run": task.run},
            set={"state": states.SCHEDULED, "scheduled_at": at, "published_at": at},
        )
        self._marks[task.id] = mark
        return mark

    def end(self, change: Change[Any]) -> None:
        """Forget a mark: it is written, or will not be. Nothing where the change is none, or not the last."""
        if self._marks.get(change.id) is change:
            del self._marks[change.id]

    def wanted(self, change: Change[Any]) -> bool:
        """Whether a write is anything but a mark that its task's grant took with it."""
        return change.set.get("state") != states.SCHEDULED or change.id in self._marks

    def with_mark(self, change: Change[D]) -> Change[D]:
        """Return a grant of a task whose mark is on its way as one that does the mark's work too; else the change."""
        mark = self._marks.get(change.id)
        if mark is None or change.set.get("state") != states.RUNNING:
            return change
        if change.where.get("run") != mark.where["run"]:
            return change
        return msgspec.structs.replace(
            change, set={"scheduled_at": mark.set["scheduled_at"], **change.set}
        )

    def granted(self, task: Task) -> None:
        """A task was granted: its mark, if it is on its way, has nothing left to say."""
        mark = self._marks.get(task.id)
        if mark is not None and task.run > mark.where["run"]:
            self.end(mark)
