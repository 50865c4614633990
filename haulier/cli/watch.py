"""`haulier watch`: a job as it runs, redrawn in place on a terminal, as plain lines in a pipe."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime
from typing import Final

import click

from haulier.cli.calls import Parting, ask, asks_server, with_tasks
from haulier.cli.forms import json_option
from haulier.cli.general import EXIT_FAULT
from haulier.cli.job_ids import LAST, job_argument, whole_id
from haulier.cli.logs import Printer, Wanted, follow_log
from haulier.cli.output import (
    plain_text,
    redraws,
    say,
    shortened,
    show_fields,
    show_json,
    shown_width,
    styled,
    text_width,
)
from haulier.cli.task_names import TaskNames
from haulier.cli.times import time_between, wall_time, zoned
from haulier.cli.tree import (
    bar,
    head_line,
    icon_of,
    job_lines,
    left_running,
    steps_of,
    waiting_message,
)
from haulier.client import Client, path_name
from haulier.errors import UnreachableError
from haulier.results import Job, Task

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME: Final = 0.1
_LOOK: Final = 0.5
_LARGE: Final = 200
"""Past so many tasks a job is looked at less often."""
_PATIENCE: Final = 60.0
"""Seconds without an answer after which to give up."""


@click.command()
@job_argument(metavar="[ID]", default=LAST)
@json_option
@asks_server
def watch(client: Client, job_id: str, as_json: bool) -> int:
    """Watch a job until it ends, by default the newest: its steps, and why it waits.

    The exit code is 0 only if it COMPLETED. Ctrl-C leaves the job running.
    """
    parting = Parting()

    async def watched(client: Client) -> int:
        id = await whole_id(client, job_id)
        job = await client.job(id)
        parting.text = left_running(job.id)
        if as_json:
            ended = await client.wait(job.id)
            show_json(await client.request("GET", f"/jobs/{path_name(job.id)}"))
        else:
            ended = await watch_job(client, job, with_log=False)
        return 0 if ended.state == "COMPLETED" else EXIT_FAULT

    return ask(client, watched, parting)


async def watch_job(client: Client, job: Job, *, with_log: bool) -> Job:
    """Show a job until it has ended; return it then."""
    if redraws():
        return await _OnTerminal(client, job).watch(with_log=with_log)
    return await _in_pipe(client, job)


class LiveRegion:
    """Lines at the bottom of a terminal that are drawn anew in place."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def draw(self, lines: list[str]) -> None:
        """Replace what was drawn."""
        lines = [_colored(line) for line in lines]
        self._put(self._erased() + "".join(f"{line}\n" for line in lines))
        self._lines = lines

    def above(self, line: str) -> None:
        """Print a line that stays, above what is drawn."""
        line = _colored(line)
        again = "".join(f"{each}\n" for each in self._lines)
        self._put(f"{self._erased()}{line}\n{again}")

    def _erased(self) -> str:
        columns = shown_width() or 80
        # A terminal that became narrower has wrapped what was drawn.
        rows = sum(max(1, -(-_shown_width(line) // columns)) for line in self._lines)
        return f"\x1b[{rows}F\x1b[J" if rows else ""

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _colored(line: str) -> str:
    context = click.get_current_context(silent=True)
    return click.unstyle(line) if context is not None and context.color is False else line


def _shown_width(line: str) -> int:
    return text_width(click.unstyle(line))


class _OnTerminal:
    """The tree of a job, with spinners, redrawn until it ends."""

    def __init__(self, client: Client, job: Job) -> None:
        self._client = client
        self._job = job
        self._region = LiveRegion()
        self._away: datetime | None = None
        self._large = False
        self._frame = 0

    async def watch(self, *, with_log: bool) -> Job:
        await self._take(self._job)
        try:
            work = [self._look(), self._redraw()]
            await asyncio.gather(*work, *([self._log()] if with_log else []))
        finally:
            self._region.draw(self._lines(""))
        return self._job

    async def _take(self, job: Job) -> None:
        self._large = len(job.execution) >= _LARGE
        self._job = await with_tasks(self._client, job)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while not self._job.ended:
            await asyncio.sleep(4 * _LOOK if self._large else _LOOK)
            try:
                await self._take(await self._client.job(self._job.id))
            except UnreachableError:
                self._away = self._away or wall_time()
                if loop.time() - heard > _PATIENCE:
                    raise
            else:
                heard, self._away = loop.time(), None

    async def _redraw(self) -> None:
        while not self._job.ended:
            self._region.draw(self._lines(_SPINNER[self._frame % len(_SPINNER)]))
            self._frame += 1
            await asyncio.sleep(_FRAME)

    async def _log(self) -> None:
        names = await TaskNames.of(self._client, self._job)
        printer = Printer(Wanted(), above=self._region.above)
        await follow_log(self._client, self._job, names, printer)

    def _lines(self, spinner: str) -> list[str]:
        size = os.get_terminal_size(sys.stdout.fileno()) if sys.stdout.isatty() else None
        columns = shown_width() or 80
        lines = job_lines(self._job, wall_time(self._client), columns - 1, spinner=spinner)
        if spinner and self._job.task_count:
            done = bar(round(self._job.progress), 100)
            lines.insert(1, f"  {styled(done, 'cyan')} {self._job.progress:.0f}%")
        if self._away is not None:
            text = f"  not connected, showing {zoned(self._away)}"
            lines.insert(1, styled(shortened(text, columns - 1), "yellow"))
        return _fitting(lines, size.lines - 1 if size and spinner else None)


def _fitting(lines: list[str], rows: int | None) -> list[str]:
    """Leave out steps in the middle where the terminal is not high enough: the last ones run."""
    if rows is None or len(lines) <= rows or rows < 4:
        return lines
    head, tail = lines[:2], lines[-(rows - 3) :]
    return [*head, styled(f"  … {len(lines) - rows + 1} steps more", "dim"), *tail]


async def _in_pipe(client: Client, job: Job) -> Job:
    """Print a line for each change of a job and its tasks."""
    seen: dict[str, str] = {}
    reason = ""
    names = await TaskNames.of(client, job)
    say(_plain(f"{job.state.lower()} {plain_text(job.name)} {job.id}"))
    while True:
        for task in job.execution:
            if seen.get(task.id) != task.state and task.state in _TOLD:
                say(_plain(_change(task, await names.of_task(task.id))))
            seen[task.id] = task.state
        waits = "" if job.ended else waiting_message(job, steps_of(job))
        if waits and waits != reason:
            say(_plain(waits))
        reason = waits
        sys.stdout.flush()
        if job.ended:
            say(head_line(job, wall_time(client), None))
            return job
        await asyncio.sleep(_LOOK)
        job = await client.job_again(job.id)
        await names.take(job)


_TOLD: Final = frozenset({"RUNNING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})


def _plain(text: str) -> str:
    return f"{zoned(wall_time())}  {text}"


def _change(task: Task, name: str) -> str:
    icon, _ = icon_of(task.state)
    took = time_between(task.started_at, task.completed_at or task.failed_at)
    attempt = f" (attempt {task.attempt})" if task.attempt > 1 else ""
    after = f" after {took}" if took else ""
    return f"{icon} {name}{attempt} {task.state.lower()}{after}"


def tell_end(job: Job) -> None:
    """Print what came of a job that was watched, besides its tree."""
    show_fields([("result", job.result or "")])
