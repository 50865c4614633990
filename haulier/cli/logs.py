"""`haulier logs`: prints or follows the log of a job or task."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import click

from haulier.cli.calls import EXIT_INTERRUPTED, FAULT, ask, asks_server, json_option
from haulier.cli.output import plain_text, say_on_stderr, show_json
from haulier.client import Client, path_name
from haulier.errors import ApiError
from haulier.results import Job, LogPart

_PAGE: Final = 100
_COLORS: Final = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta")
_COMPOSITES: Final = frozenset({"parallel", "each", "subjob"})


@click.command()
@click.argument("which", metavar="ID")
@click.option(
    "--follow", "-f", is_flag=True, help="Print the log so far, then new lines as they arrive."
)
@json_option
@asks_server
def logs(client: Client, which: str, follow: bool, as_json: bool) -> int:
    """Print the log of the job or task ID."""

    async def shown(client: Client) -> int:
        is_job = await _is_job(client, which)
        if as_json:
            kind = "jobs" if is_job else "tasks"
            show_json(await client.request("GET", f"/{kind}/{path_name(which)}/log"))
        elif not is_job:
            await _show_task_log(client, which, follow)
        elif follow:
            await _follow_log(client, await client.job(which))
        else:
            await _download(client, which)
        return 0

    try:
        return ask(client, shown)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


async def _is_job(client: Client, which: str) -> bool:
    try:
        await client.job(which)
    except ApiError as error:
        if error.status != 404:
            raise
    else:
        return True
    try:
        await client.task(which)
    except ApiError as error:
        if error.status != 404:
            raise
        raise ApiError(404, f"no job or task has the id {plain_text(which)}") from None
    return False


async def _download(client: Client, job_id: str) -> None:
    async with aclosing(client.download_log(job_id)) as chunks:
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


async def _show_task_log(client: Client, task_id: str, follow: bool) -> None:
    if follow:
        async with aclosing(client.follow_task_log(task_id)) as lines:
            async for line in lines:
                click.echo(line.text)
    else:
        async with aclosing(_stored_parts(client, task_id)) as parts:
            async for part in parts:
                click.echo(part.contents, nl=not part.contents.endswith("\n"))


async def _stored_parts(client: Client, task_id: str) -> AsyncGenerator[LogPart]:
    """Yield the parts of a task's log that are there now, oldest first; the pages are newest first."""
    last = (await client.task_log(task_id, size=_PAGE)).total_pages
    seen = 0
    for page in range(last, 0, -1):
        found = await client.task_log(task_id, page=page, size=_PAGE)
        for part in reversed(found.items):
            # What is written meanwhile moves the pages.
            if part.number > seen:
                seen = part.number
                yield part


async def follow_job(client: Client, job_id: str) -> int:
    """Show a job's log as it comes, then its result and state; return 0 if it COMPLETED."""
    try:
        await _follow_log(client, await client.job(job_id))
        job = await client.wait(job_id)
    except asyncio.CancelledError:
        say_on_stderr(f"job {job_id} is still running; to cancel it: haulier cancel {job_id}")
        raise
    _show_end(job)
    return 0 if job.state == "COMPLETED" else FAULT


def _show_end(job: Job) -> None:
    if job.result:
        click.echo(f"result: {job.result}")
    if job.error:
        click.echo(f"error: {job.error}", err=True)
    click.echo(job.state)


async def _follow_log(client: Client, job: Job) -> None:
    prefixes = _Prefixes(client, several=_has_several(job))
    async with aclosing(client.follow_job_log(job.id)) as lines:
        async for line in lines:
            click.echo(await prefixes.of(line.task_id) + line.text)


def _has_several(job: Job) -> bool:
    if len(job.tasks) != 1:
        return True
    return any(job.tasks[0].get(name) for name in _COMPOSITES)


class _Prefixes:
    """What stands before the lines of each task, where a log has several: its name."""

    def __init__(self, client: Client, *, several: bool) -> None:
        self._client = client
        self._several = several
        self._known: dict[str, str] = {}

    async def of(self, task_id: str) -> str:
        """Return the prefix of a task's lines, asking for the task's name once."""
        if not self._several:
            return ""
        if task_id not in self._known:
            name = plain_text(await self._name(task_id)) or task_id[:8]
            color = _COLORS[len(self._known) % len(_COLORS)]
            # click leaves the colour out where the output is no terminal.
            self._known[task_id] = click.style(f"[{name}] ", fg=color)
        return self._known[task_id]

    async def _name(self, task_id: str) -> str:
        try:
            return (await self._client.task(task_id)).name
        except ApiError:
            # Deleted meanwhile, or /tasks is switched off: the log matters more than the name.
            return ""


LOGS_COMMANDS: Final = (logs,)
