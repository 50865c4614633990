"""A job as a tree of its steps: what is done, where it failed and why, what was not reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from haulier.cli.output import (
    first_line,
    padded,
    plain_text,
    shortened,
    styled,
    text_width,
    wrapped,
)
from haulier.cli.times import relative, time_between
from haulier.results import Job, JobSummary, Task

SHORT: Final = 8
"""How many digits of an id are shown."""
MANY_CHILDREN: Final = 50
"""Past so many children a composite shows their number by state, and the failed ones."""
_SHOWN_FAILED: Final = 10
_ICONS: Final = {
    "COMPLETED": ("✓", "green"),
    "FAILED": ("✗", "red"),
    "CANCELLED": ("⊘", "yellow"),
    "RUNNING": ("●", "cyan"),
    "SKIPPED": ("-", "dim"),
    "": ("·", "dim"),
}
_WAITS: Final = ("○", "")
_BAR: Final = 10
_SAID_ROWS: Final = 3
"""Lines of a terminal that the last line of an error takes at most."""
_NARROW: Final = 60
"""Columns under which a job's line says only what became of it, not when."""


class TreeStep(msgspec.Struct):
    """A task with its attempts, oldest first (none: it was not reached), and its children."""

    name: str
    attempts: list[Task] = []
    children: list[TreeStep] = []

    @property
    def last(self) -> Task | None:
        """The attempt that counts."""
        return self.attempts[-1] if self.attempts else None

    @property
    def state(self) -> str:
        """Where it stands; nothing where it was not reached."""
        return self.last.state if self.last else ""


def short(id: str) -> str:
    """Return an id as people read it."""
    return plain_text(id)[:SHORT]


def left_running(job_id: str) -> str:
    """Return the line for somebody who leaves: that the job goes on, and how to come back."""
    id = short(job_id)
    return f"job {id} goes on: haulier watch {id} (end it: haulier cancel {id})"


def steps_of(job: Job) -> list[TreeStep]:
    """Return the steps of a job, those that were not reached too."""
    children: dict[str, list[Task]] = {}
    for task in job.execution:
        children.setdefault(task.parent_id or "", []).append(task)
    steps = _grouped(children.get("", []), children)
    reached = {step.attempts[0].position for step in steps}
    for position, definition in enumerate(job.tasks, 1):
        if position not in reached and not job.execution_truncated:
            name = definition.get("name") or f"task {position}"
            steps.insert(min(position - 1, len(steps)), TreeStep(name=str(name)))
    return steps


def _grouped(tasks: Sequence[Task], children: dict[str, list[Task]]) -> list[TreeStep]:
    steps: list[TreeStep] = []
    newest: dict[tuple[int, str], TreeStep] = {}
    for task in tasks:
        step = newest.get((task.position, task.name))
        if step is None or not _is_next_attempt(task, step):
            step = newest[task.position, task.name] = TreeStep(name=task.name, attempts=[])
            steps.append(step)
        step.attempts.append(task)
    for step in steps:
        step.children = _grouped(children.get(step.attempts[-1].id, []), children)
    return steps


def _is_next_attempt(task: Task, step: TreeStep) -> bool:
    """Whether it repeats the step: another child of the same parent may have the same name."""
    if task.attempt > 1:
        return True
    return step.state in ("FAILED", "CANCELLED")


def job_lines(
    job: Job,
    at: datetime,
    columns: int | None,
    *,
    whole: bool = False,
    spinner: str = "",
    said: str = "",
) -> list[str]:
    """Return a job as lines: its head, why it failed or waits, its steps.

    `said`: what the task by which it failed printed last, where its error does not say so.
    """
    lines = [head_line(job, at, columns)]
    steps = steps_of(job)
    lines += [*_reason_lines(job, steps, columns, said)]
    rows = [*_rows(steps, job, at, whole=whole, depth=1)]
    lines += _laid_out(rows, columns, spinner)
    if job.ended:
        failed = " --failed" if job.state == "FAILED" else ""
        lines.append(styled(f"  logs: haulier logs {short(job.id)}{failed}", "dim"))
    return lines


def head_line(job: JobSummary, at: datetime, columns: int | None) -> str:
    """Return a job in one line: `✗ fetch and report  6ffa3e48  failed after 7.4s, 3 min ago`."""
    icon, style = icon_of(job.state)
    rest = f"  {short(job.id)}  "
    phrase = state_phrase(job, at)
    if columns is not None and columns < _NARROW:
        phrase = phrase.partition(",")[0]
    room = None if columns is None else max(8, columns - 2 - len(rest) - len(phrase))
    name = shortened(plain_text(job.name), room)
    return f"{styled(icon, style)} {styled(name, 'bold')}{rest}{styled(phrase, style)}"


def icon_of(state: str) -> tuple[str, str]:
    """Return the sign of a state, and its colour."""
    return _ICONS.get(state, _WAITS)


def ended_at(job: JobSummary) -> datetime | None:
    """Return when a job ended, good or bad."""
    return job.completed_at or job.failed_at


def state_phrase(job: JobSummary, at: datetime) -> str:
    """Return where a job stands and since when, in words."""
    end = ended_at(job)
    if end is not None:
        took = time_between(job.started_at or job.created_at, end)
        link = "in" if job.state == "COMPLETED" else "after"
        return f"{job.state.lower()} {link} {took}, {relative(end, at)}"
    if job.state == "RUNNING":
        done = f", {job.progress:.0f}% done" if job.progress else ""
        return f"running for {time_between(job.started_at or job.created_at, at)}{done}"
    return f"{plain_text(job.state).lower()}, submitted {relative(job.created_at, at)}"


def failed_step(steps: Sequence[TreeStep]) -> TreeStep | None:
    """Return the deepest step by which a job failed."""
    for step in steps:
        if step.state == "FAILED":
            return failed_step(step.children) or step
    return None


def _reason_lines(
    job: Job, steps: Sequence[TreeStep], columns: int | None, said: str
) -> Iterator[str]:
    if job.state == "FAILED":
        yield from _failure_lines(job, failed_step(steps), columns, said)
    elif not job.ended:
        reason = waiting_message(job, steps)
        if reason:
            yield from (styled(each, "yellow") for each in wrapped(reason, "  ", columns))


def _failure_lines(
    job: Job, step: TreeStep | None, columns: int | None, said: str
) -> Iterator[str]:
    task = step.last if step else None
    error = task.error if task is not None and task.error else job.error
    where = plain_text(task.name if task else job.failed_task.name if job.failed_task else "")
    attempt = _attempt(step) if step else ""
    text = f"Failed at {where}: " if where else "Failed: "
    reason = first_line(error).removeprefix(f"task {where!r}: ") or "no reason is given"
    text += reason + (f" ({attempt})" if attempt else "")
    yield from (styled(each, "red") for each in wrapped(text, "  ", columns))
    for line in _said_last(error or "") or [each for each in [plain_text(said)] if each]:
        shown = shortened(line, columns and _SAID_ROWS * (columns - 4))
        yield from (styled(each, "dim") for each in wrapped(shown, "    ", columns))


def _said_last(error: str) -> list[str]:
    """Return what tells most below an error's first line: the last line, or an expression with its fault marked."""
    lines = [line for line in map(plain_text, error.splitlines()[1:]) if line]
    marked = [line for line in lines if line.startswith("|")]
    return marked or lines[-1:]


def _attempt(step: TreeStep) -> str:
    task = step.last
    if task is None or task.retry is None or not task.retry.limit:
        return ""
    return f"attempt {task.retry.attempts + 1} of {task.retry.limit + 1}"


def waiting_message(job: Job, steps: Sequence[TreeStep]) -> str:
    """Return why nothing of a job runs, nothing where something does or that is not known."""
    if job.waiting is not None and job.waiting.message:
        return f"Waiting: {plain_text(job.waiting.message)}"
    for step in steps:
        task = step.last
        if task is not None and task.waiting is not None and task.waiting.message:
            return f"Waiting at {plain_text(task.name)}: {plain_text(task.waiting.message)}"
    return ""


class TreeRow(msgspec.Struct):
    """A step as it is shown."""

    depth: int
    state: str
    name: str
    took: str = ""
    note: str = ""


def _rows(
    steps: Sequence[TreeStep], job: Job, at: datetime, *, whole: bool, depth: int
) -> Iterator[TreeRow]:
    if len(steps) > MANY_CHILDREN and depth > 1 and not whole:
        failed = [step for step in steps if step.state == "FAILED"]
        yield from _shown(failed[:_SHOWN_FAILED], job, at, whole=whole, depth=depth)
        return
    yield from _shown(steps, job, at, whole=whole, depth=depth)


def _shown(
    steps: Sequence[TreeStep], job: Job, at: datetime, *, whole: bool, depth: int
) -> Iterator[TreeRow]:
    for step in steps:
        took, note = _took(step.last, at), _note(step, job)
        yield TreeRow(depth, step.state, plain_text(step.name), took, note)
        yield from _rows(step.children, job, at, whole=whole, depth=depth + 1)


def _took(task: Task | None, at: datetime) -> str:
    if task is None or task.started_at is None:
        return ""
    end = task.completed_at or task.failed_at
    if end is None and task.state != "RUNNING":
        return ""
    return time_between(task.started_at, end or at)


def _note(step: TreeStep, job: Job) -> str:
    task = step.last
    if task is None:
        return "not run" if job.ended else ""
    notes = [
        f"×{len(step.attempts)}" if len(step.attempts) > 1 else "",
        _children_note(step, task),
        f"job {short(task.subjob.id)}" if task.subjob and task.subjob.id else "",
        f"lost {len(task.runs)} run{'s' if len(task.runs) > 1 else ''}" if task.runs else "",
        "" if task.state in ("COMPLETED", "FAILED", "RUNNING", "CREATED") else task.state.lower(),
    ]
    return "  ".join(note for note in notes if note)


def _children_note(step: TreeStep, task: Task) -> str:
    composite = task.each or task.parallel
    if composite is None:
        return ""
    size = composite.size if task.each else len(composite.tasks)
    if size is None:
        return ""
    done = f"{composite.completions} of {size}"
    if size <= MANY_CHILDREN:
        return f"{bar(composite.completions, size)} {done}" if task.state == "RUNNING" else done
    counts: dict[str, int] = dict(task.counts or {})
    if not counts:
        for child in step.children:
            counts[child.state] = counts.get(child.state, 0) + 1
    failed = counts.get("FAILED", 0)
    return done + (f", {failed} failed" if failed else "")


def bar(done: int, size: int) -> str:
    """Return how much is done as a bar."""
    full = round(_BAR * done / size) if size else 0
    return "█" * full + "░" * (_BAR - full)


def _laid_out(rows: Sequence[TreeRow], columns: int | None, spinner: str) -> list[str]:
    """Return the rows as lines: names, times and notes each under the other."""
    wide = max((2 * row.depth + 2 + text_width(row.name) for row in rows), default=0)
    took = max((len(row.took) for row in rows), default=0)
    if columns is not None:
        note = max((text_width(row.note) for row in rows), default=0)
        wide = min(wide, max(columns - took - note - 4, 20))
    return [_line(row, wide, took, columns, spinner) for row in rows]


def _line(row: TreeRow, wide: int, took: int, columns: int | None, spinner: str) -> str:
    icon, style = icon_of(row.state)
    if row.state == "RUNNING" and spinner:
        icon = spinner
    indent = "  " * row.depth
    name = shortened(row.name, max(wide - len(indent) - 2, 4))
    name = padded(name, wide - len(indent) - 2) if row.took or row.note else name
    rest = f"  {row.took.rjust(took)}" if took and (row.took or row.note) else ""
    rest += f"  {row.note}" if row.note else ""
    if columns is not None:
        rest = shortened(rest, max(columns - wide, 4))
    text = f"{indent}{styled(icon, style)} {name}{styled(rest, '' if row.took else 'dim')}"
    return text.rstrip()
