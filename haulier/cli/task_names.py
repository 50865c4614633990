"""The names of tasks before the lines of a log: no two tasks of a job have the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from haulier.cli.output import plain_text
from haulier.client import Client
from haulier.errors import ApiError
from haulier.results import Job, Task

_DEEPEST: Final = 20


class TaskNames:
    """Knows the tasks of a job and its sub-jobs by name: `square/task 1`, as they are nested.

    Attempts at one step share its name. Another step that would have it too gets `#2`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tasks: dict[str, Task] = {}
        self._names: dict[str, str] = {}
        self._steps: dict[str, tuple[str, str, int, str]] = {}
        self._above: dict[str, str] = {}
        """What stands before the names of a job's tasks, by the job's id."""
        self.subjobs: list[str] = []
        """The ids of the sub-jobs that are known, each after the job that has it."""

    @classmethod
    async def of(cls, client: Client, job: Job) -> Self:
        """Return the names of what is known of a job now."""
        names = cls(client)
        names._above[job.id] = ""
        await names.take(job)
        return names

    async def take(self, job: Job) -> None:
        """Learn what a job has now, its sub-jobs too."""
        whole = await self._client.all_tasks(job.id) if job.execution_truncated else job.execution
        for task in whole:
            self._tasks[task.id] = task
        for task in whole:
            subjob = task.subjob.id if task.subjob else ""
            if not subjob:
                continue
            if subjob not in self._above:
                self._above[subjob] = await self.of_task(task.id) + "/"
                self.subjobs.append(subjob)
            below = await self._job(subjob)
            if below is not None:
                await self.take(below)

    async def _job(self, job_id: str) -> Job | None:
        try:
            return await self._client.job(job_id)
        except ApiError:
            return None  # deleted meanwhile

    async def of_task(self, task_id: str) -> str:
        """Return the name of a task, asking the server once for one that is not known."""
        if task_id not in self._names:
            self._names[task_id] = await self._named(task_id)
        return self._names[task_id]

    async def _named(self, task_id: str) -> str:
        task = await self._task(task_id)
        if task is None or not plain_text(task.name):
            return task_id[:8]
        above = self._above.get(task.job_id, "")
        if task.parent_id and task.parent_id != task_id:
            parent = await self._task(task.parent_id)
            if parent is not None and parent.job_id == task.job_id:
                above = await self.of_task(task.parent_id) + "/"
        return self._distinct(task, above + plain_text(task.name))

    def _distinct(self, task: Task, name: str) -> str:
        step = (task.job_id, task.parent_id or "", task.position, task.name)
        if task.parent_id and task.attempt <= 1:
            # Siblings may have one name and position: each first attempt is another step.
            step = (*step[:3], f"{task.name} {task.id}")
        number, found = 1, name
        while self._steps.get(found, step) != step and not self._repeats(task, found):
            number += 1
            found = f"{name}#{number}"
        self._steps.setdefault(found, step)
        return found

    def _repeats(self, task: Task, name: str) -> bool:
        """Whether a task is a further attempt at the step that has a name."""
        job_id, parent_id, position, _ = self._steps[name]
        same = (task.job_id, task.parent_id or "", task.position)
        return task.attempt > 1 and same == (job_id, parent_id, position)

    async def _task(self, task_id: str) -> Task | None:
        if task_id not in self._tasks:
            try:
                self._tasks[task_id] = await self._client.task(task_id)
            except ApiError:
                # Deleted meanwhile, or /tasks is switched off: the log matters more than the name.
                return None
        return self._tasks[task_id]


def has_subjobs(job: Job) -> bool:
    """Whether a job has steps that are jobs of their own."""
    return any(_is_subjob(task, _DEEPEST) for task in job.tasks)


def _is_subjob(task: Mapping[str, Any], depth: int) -> bool:
    if task.get("subjob"):
        return True
    below: Sequence[Any] = (task.get("parallel") or {}).get("tasks") or []
    below = [*below, (task.get("each") or {}).get("task") or {}]
    return depth > 0 and any(_is_subjob(each, depth - 1) for each in below)
