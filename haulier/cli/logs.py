"""`haulier logs`: prints or follows the log of a job, with its sub-jobs, or of a task."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec
from click.globals import resolve_color_default

from haulier.cli.calls import Parting, ask, asks_server
from haulier.cli.forms import json_option
from haulier.cli.general import EXIT_FAULT
from haulier.cli.job_ids import job_argument, whole_id
from haulier.cli.output import json_text, plain_text, say, say_on_stderr, terminal_text
from haulier.cli.task_names import TaskNames, has_subjobs
from haulier.cli.times import zoned
from haulier.cli.tree import TreeStep, left_running, steps_of
from haulier.client import Client
from haulier.errors import ApiError
from haulier.results import Job, LogPart, Task

_PAGE: Final = 1000
_COLORS: Final = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta")
_LOOK: Final = 1.0
"""Seconds between two looks for new sub-jobs of a job that is followed."""
_LEAST_DIGITS: Final = 6
_LONGEST_LINE: Final = 1 << 24
"""Characters of a line that is waited for; a longer one is printed in pieces."""


class Wanted(msgspec.Struct, frozen=True):
    """Which lines are asked for, and how they are shown."""

    tasks: tuple[str, ...] = ()
    tail: int | None = None
    since: str | None = None
    times: bool = False
    grep: re.Pattern[str] | None = None
    failed: bool = False
    as_json: bool = False

    @property
    def picks(self) -> bool:
        """Whether some lines of what the server returns are left out."""
        return bool(self.tasks or self.grep or self.failed)

    def takes(self, named: NamedPart) -> bool:
        """Whether a part is of a task that is asked for by name or id."""
        return not self.tasks or any(
            which in (named.name, named.name.rpartition("/")[2])
            or (len(which) >= _LEAST_DIGITS and named.part.task_id.startswith(which))
            for which in self.tasks
        )

    @property
    def begins_late(self) -> bool:
        """Whether the beginning of a log may be left out."""
        return self.tail is not None or self.since is not None


class NamedPart(msgspec.Struct, frozen=True):
    """Some lines of a log, and the name of their task."""

    name: str
    part: LogPart


def _pattern(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}") from None


@click.command()
@job_argument("which")
@click.option(
    "--follow", "-f", is_flag=True, help="Print the log so far, then new lines as they arrive."
)
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="Only this task, by name or id."
)
@click.option("--tail", "-n", type=click.IntRange(0), metavar="LINES", help="Only the last lines.")
@click.option("--since", metavar="TIME", help="Only from this time on, or this long ago (10m).")
@click.option("--times", "-t", is_flag=True, help="Print when each line came.")
@click.option(
    "--grep", metavar="REGEX", callback=_pattern, help="Only lines that match the expression."
)
@click.option(
    "--failed",
    is_flag=True,
    help="Only tasks that failed, in their last attempt, once they have ended.",
)
@json_option
@asks_server
def logs(
    client: Client,
    which: str,
    follow: bool,
    tasks: tuple[str, ...],
    as_json: bool,
    **asked: Any,
) -> int:
    """Print the log of the job or task ID, each line with the name of its task.

    With --json each part of the log is an object on a line of its own.
    """
    wanted = Wanted(tasks=tasks, as_json=as_json, **asked)
    parting = Parting()
    return ask(client, lambda client: _show(client, which, wanted, parting, follow=follow), parting)


async def _show(
    client: Client, which: str, wanted: Wanted, parting: Parting, *, follow: bool
) -> int:
    id = await whole_id(client, which)
    job = await _job(client, id)
    printer = Printer(wanted)
    if job is not None and follow and not job.ended:
        parting.text = left_running(job.id)
        if wanted.failed:
            job = await client.wait(job.id)
    if job is None:
        task = await _task(client, id)
        await _show_task(client, task, printer, follow=follow)
    elif follow and not wanted.failed:
        await _follow_with_tail(client, job, printer)
    else:
        names = await TaskNames.of(client, job)
        allowed = await _allowed(client, job, names, wanted)
        await _print_all(printer, _job_parts(client, job, names, wanted, allowed))
    return 0


async def _job(client: Client, id: str) -> Job | None:
    try:
        return await client.job(id)
    except ApiError as error:
        if error.status != 404:
            raise
    return None


async def _task(client: Client, id: str) -> Task:
    try:
        return await client.task(id)
    except ApiError as error:
        if error.status != 404:
            raise
        raise ApiError(404, f"no job or task has the id {plain_text(id)}") from None


class Printer:
    """Prints lines with the names of their tasks, as they are asked for."""

    def __init__(self, wanted: Wanted, above: Callable[[str], None] | None = None) -> None:
        self.wanted = wanted
        self._above = above
        self._terminal = sys.stdout.isatty()
        self._colors: dict[str, str] = {}

    def prepared(self, named: NamedPart) -> list[str]:
        """Return the lines of a part that are asked for, without their names."""
        if not self.wanted.takes(named):
            return []
        lines = named.part.contents.removesuffix("\n").split("\n")
        grep = self.wanted.grep
        return [line for line in lines if grep is None or grep.search(line)]

    def show(self, named: NamedPart, lines: Sequence[str], *, flush: bool = False) -> None:
        """Print lines of a part."""
        if self.wanted.as_json and lines:
            part = msgspec.to_builtins(named.part)
            part |= {"contents": "".join(f"{line}\n" for line in lines), "task": named.name}
            self._write(json_text(part))
        elif not self.wanted.as_json:
            prefix = self._time(named.part) + self._prefix(named.name)
            for line in lines:
                self._write(prefix + (terminal_text(line) if self._terminal else line))
        if flush:
            sys.stdout.flush()

    def _write(self, line: str) -> None:
        if self._above is not None:
            self._above(line)
        elif self._terminal:
            say(line)
        else:
            sys.stdout.write(line + "\n")

    def _time(self, part: LogPart) -> str:
        return f"{zoned(part.created_at)} " if self.wanted.times else ""

    def _prefix(self, name: str) -> str:
        if not name:
            return ""
        text = f"[{name}] "
        if not self._terminal and not resolve_color_default():
            return text
        if name not in self._colors:
            self._colors[name] = _COLORS[len(self._colors) % len(_COLORS)]
        return click.style(text, fg=self._colors[name])


async def _print_all(printer: Printer, parts: AsyncGenerator[NamedPart]) -> None:
    """Print parts; where a tail of some lines only is asked for, it is made here."""
    tail = printer.wanted.tail
    last: deque[tuple[NamedPart, str]] = deque(maxlen=tail)
    async with aclosing(_whole_lines(parts)) as found:
        async for named in found:
            lines = printer.prepared(named)
            if tail is None:
                printer.show(named, lines)
            else:
                last.extend((named, line) for line in lines)
    for named, line in last:
        printer.show(named, [line])


async def _whole_lines(parts: AsyncGenerator[NamedPart]) -> AsyncGenerator[NamedPart]:
    """Yield parts whose lines have ended: a line that is longer than a part goes on in the next one of its task."""
    begun: dict[str, list[str]] = {}
    newest: dict[str, NamedPart] = {}
    async with aclosing(parts) as found:
        async for named in found:
            task, contents = named.part.task_id, named.part.contents
            ended, newline, rest = contents.rpartition("\n")
            if newline:
                yield _with_contents(named, "".join([*begun.pop(task, []), ended, newline]))
            if rest:
                pieces = begun.setdefault(task, [])
                pieces.append(rest)
                newest[task] = named
                if sum(map(len, pieces)) > _LONGEST_LINE:
                    yield _with_contents(named, "".join(begun.pop(task)))
    for task, pieces in begun.items():
        yield _with_contents(newest[task], "".join(pieces))


def _with_contents(named: NamedPart, contents: str) -> NamedPart:
    return NamedPart(named.name, msgspec.structs.replace(named.part, contents=contents))


async def _stored(
    client: Client, path: str, wanted: Wanted, name: Callable[[LogPart], Any]
) -> AsyncGenerator[NamedPart]:
    """Yield the parts of one log that are there now, oldest first."""
    exact = wanted.tail if not wanted.picks else None
    asked = client.job_log if path.startswith("job:") else client.task_log
    for number in itertools.count(1):
        found = await asked(
            path.partition(":")[2],
            tail=exact,
            since=wanted.since,
            oldest_first=True,
            page=None if exact is not None else number,
            size=_PAGE,
        )
        for part in found.items:
            yield NamedPart(await name(part), part)
        if exact is not None or not found.has_more:
            break


async def _job_parts(
    client: Client,
    job: Job,
    names: TaskNames,
    wanted: Wanted,
    allowed: frozenset[str] | None,
) -> AsyncGenerator[NamedPart]:
    """Yield the parts of a job and its sub-jobs in the order of their times."""

    async def name(part: LogPart) -> str:
        return await names.of_task(part.task_id)

    logs = [_stored(client, f"job:{job.id}", wanted, name)]
    logs += [_stored(client, f"job:{id}", wanted, name) for id in names.subjobs]
    async with aclosing(_merged(logs)) as parts:
        async for named in parts:
            if allowed is None or named.part.task_id in allowed:
                yield named


async def _merged(logs: Sequence[AsyncGenerator[NamedPart]]) -> AsyncGenerator[NamedPart]:
    heads = {}
    for number, log in enumerate(logs):
        head = await anext(log, None)
        if head is not None:
            heads[number] = head
    while heads:
        number = min(heads, key=lambda number: _time_of(heads[number]))
        yield heads.pop(number)
        head = await anext(logs[number], None)
        if head is not None:
            heads[number] = head


def _time_of(named: NamedPart) -> datetime:
    return named.part.created_at or datetime.min.replace(tzinfo=UTC)


async def _allowed(
    client: Client, job: Job, names: TaskNames, wanted: Wanted
) -> frozenset[str] | None:
    """Return the ids of the tasks that failed, if only those are asked for."""
    if not wanted.failed:
        return None
    found = {task.id for step in _failed_leaves(steps_of(job)) if (task := step.last)}
    for id in names.subjobs:
        steps = steps_of(await client.job(id))
        found |= {task.id for step in _failed_leaves(steps) if (task := step.last)}
    if job.execution_truncated:
        page = await client.job_tasks(job.id, states=["FAILED"], size=_PAGE)
        found |= {task.id for task in page.items}
    if not found:
        say_on_stderr("no task of it failed")
    return frozenset(found)


def _failed_leaves(steps: Sequence[TreeStep]) -> list[TreeStep]:
    found = []
    for step in steps:
        found += _failed_leaves(step.children)
        if step.state == "FAILED" and not step.children:
            found.append(step)
    return found


async def _show_task(client: Client, task: Task, printer: Printer, *, follow: bool) -> None:
    failed = printer.wanted.failed
    if failed and follow:
        task = await _ended(client, task)
    names = TaskNames(client)

    async def name(part: LogPart) -> str:
        return await names.of_task(part.task_id)

    parts = _stored(client, f"task:{task.id}", printer.wanted, name)
    if failed and task.state != "FAILED":
        say_on_stderr("no task of it failed")
    elif follow and not failed:
        await _follow_task(client, task, names, printer, parts)
    else:
        await _print_all(printer, parts)


async def _follow_task(
    client: Client,
    task: Task,
    names: TaskNames,
    printer: Printer,
    stored: AsyncGenerator[NamedPart],
) -> None:
    shown = Shown()
    if printer.wanted.begins_late:
        await _print_noted(printer, stored, shown)
    async with aclosing(client.follow_task_parts(task.id)) as parts:
        async for part in parts:
            if not shown.has(part):
                await _show_followed(part, names, printer)


async def _ended(client: Client, task: Task) -> Task:
    """Return a task once its log has ended."""
    async with aclosing(client.follow_task_parts(task.id)) as parts:
        async for _ in parts:
            pass
    return await client.task(task.id)


class Shown(msgspec.Struct):
    """What of a log that is followed was shown before: the newest part of each task, and its time."""

    numbers: dict[str, int] = {}
    until: datetime | None = None

    def has(self, part: LogPart) -> bool:
        """Whether a part was shown, or left out as older than what was."""
        if part.task_id in self.numbers:
            return part.number <= self.numbers[part.task_id]
        return bool(self.until and part.created_at and part.created_at <= self.until)


async def _print_noted(printer: Printer, parts: AsyncGenerator[NamedPart], shown: Shown) -> None:
    """Print parts, and note in `shown` that they were."""

    async def noted() -> AsyncGenerator[NamedPart]:
        async with aclosing(parts) as found:
            async for named in found:
                shown.numbers[named.part.task_id] = named.part.number
                shown.until = named.part.created_at
                yield named

    await _print_all(printer, noted())
    shown.until = shown.until or datetime.now(UTC)
    sys.stdout.flush()


async def _follow_with_tail(client: Client, job: Job, printer: Printer) -> None:
    names = await TaskNames.of(client, job)
    shown = Shown()
    wanted = printer.wanted
    if wanted.begins_late:
        await _print_noted(printer, _job_parts(client, job, names, wanted, None), shown)
    await follow_log(client, job, names, printer, shown)


async def follow_log(
    client: Client, job: Job, names: TaskNames, printer: Printer, shown: Shown | None = None
) -> None:
    """Print the lines of a job and its sub-jobs as they come, until it ends."""
    shown = shown or Shown()

    async def one(job_id: str) -> None:
        async with aclosing(client.follow_job_parts(job_id)) as parts:
            async for part in parts:
                if not shown.has(part):
                    await _show_followed(part, names, printer)

    followed: set[str] = set()

    async def subjobs() -> None:
        while has_subjobs(job):
            now = await client.job_again(job.id)
            await names.take(now)
            new = [id for id in names.subjobs if id not in followed]
            followed.update(new)
            if new:
                await asyncio.gather(subjobs(), *(one(id) for id in new))
                return
            if now.ended:
                return
            await asyncio.sleep(_LOOK)

    await asyncio.gather(one(job.id), subjobs())


async def _show_followed(part: LogPart, names: TaskNames, printer: Printer) -> None:
    named = NamedPart(await names.of_task(part.task_id), part)
    printer.show(named, printer.prepared(named), flush=True)


async def follow_job(client: Client, job_id: str) -> int:
    """Show a job's log as it comes, then its result and state; return 0 if it COMPLETED."""
    job = await client.job(job_id)
    await follow_log(client, job, await TaskNames.of(client, job), Printer(Wanted()))
    job = await client.job_again(job_id)
    job = job if job.ended else await client.wait(job_id)
    _show_end(job)
    return 0 if job.state == "COMPLETED" else EXIT_FAULT


def _show_end(job: Job) -> None:
    if job.result:
        say(f"result: {terminal_text(job.result)}")
    for line in (job.error or "").splitlines():
        click.echo(
            ("error: " if line == (job.error or "").splitlines()[0] else "") + terminal_text(line),
            err=True,
        )
    say(job.state)
