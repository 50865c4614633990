"""Commands for jobs: submit, list, show, cancel, restart, delete."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import click

from haulier.cli.calls import FAULT, ask, asks_server, json_option
from haulier.cli.logs import follow_job
from haulier.cli.output import (
    complain,
    moment,
    percent,
    say_on_stderr,
    show_fields,
    show_json,
    show_table,
)
from haulier.client import JSON_TYPE, YAML_TYPE, Client, path_name
from haulier.errors import ApiError, HaulierError
from haulier.results import Job, JobSummary, Page, Task


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--follow", "-f", is_flag=True, help="Print the log as it is written, then the result."
)
@click.option(
    "--idempotency-key", metavar="KEY", help="Return the existing job if this key was used before."
)
@json_option
@asks_server
def submit(
    client: Client, file: str, follow: bool, idempotency_key: str | None, as_json: bool
) -> int:
    """Submit a job from FILE (YAML, or JSON if the name ends in .json); - reads standard input.

    With --follow the exit code is 0 only if the job COMPLETED.
    """
    body, content_type = read_document(file)

    async def submitted(client: Client) -> int:
        job = await client.submit(body, content_type=content_type, idempotency_key=idempotency_key)
        if follow:
            say_on_stderr(f"job {job.id}")
            return await follow_job(client, job.id)
        if as_json:
            show_json(await client.request("GET", f"/jobs/{job.id}"))
        else:
            click.echo(job.id)
        return 0

    return ask(client, submitted)


def read_document(file: str) -> tuple[bytes, str]:
    """Return what is in a file, and its content type; - is standard input."""
    if file == "-":
        body = sys.stdin.buffer.read()
        return body, JSON_TYPE if _is_json(body) else YAML_TYPE
    try:
        body = Path(file).read_bytes()
    except OSError as error:
        raise HaulierError(
            f"can't read {file}: {(error.strerror or str(error)).lower()}"
        ) from error
    return body, JSON_TYPE if file.lower().endswith(".json") else YAML_TYPE


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


@click.command()
@click.option(
    "-q", "--query", metavar="TEXT", help="Search for words; tag:x and tags:a,b filter by tag."
)
@click.option("--state", metavar="STATE", help="Only jobs in this state.")
@click.option("--page", type=click.IntRange(1), help="Page number, from 1.")
@click.option("--size", type=click.IntRange(1, 20), help="Jobs per page, at most 20 (default: 10).")
@json_option
@asks_server
def jobs(
    client: Client,
    query: str | None,
    state: str | None,
    page: int | None,
    size: int | None,
    as_json: bool,
) -> int:
    """List jobs, newest first."""
    if as_json:
        params = {"q": query, "state": state, "page": page, "size": size}
        show_json(ask(client, lambda client: client.request("GET", "/jobs", params=params)))
        return 0
    found = ask(client, lambda client: client.jobs(query, state=state, page=page, size=size))
    rows = [_job_row(job) for job in found.items]
    show_table(("ID", "NAME", "STATE", "PROGRESS", "CREATED"), rows, "no jobs")
    _note_more(found)
    return 0


def _job_row(job: JobSummary) -> tuple[str, ...]:
    return job.id, job.name, job.state, percent(job.progress), moment(job.created_at)


def _note_more(page: Page[JobSummary]) -> None:
    if page.number < page.total_pages:
        say_on_stderr(
            f"page {page.number} of {page.total_pages}: --page {page.number + 1} shows more"
        )


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
@asks_server
def job(client: Client, job_id: str, as_json: bool) -> int:
    """Show a job and its tasks."""
    if as_json:
        show_json(ask(client, lambda client: client.request("GET", f"/jobs/{path_name(job_id)}")))
        return 0
    _show_job(ask(client, lambda client: client.job(job_id)))
    return 0


def _show_job(job: Job) -> None:
    ended = job.completed_at or job.failed_at
    show_fields(
        [
            ("id", job.id),
            ("name", job.name),
            ("description", job.description),
            ("state", job.state),
            ("progress", percent(job.progress)),
            ("tags", ", ".join(job.tags)),
            ("inputs", "\n".join(f"{name}={value}" for name, value in job.inputs.items())),
            ("parent", job.parent_id or ""),
            ("created", moment(job.created_at)),
            ("started", moment(job.started_at)),
            ("ended", moment(ended)),
            ("result", job.result or ""),
            ("error", job.error or ""),
        ]
    )
    if job.execution:
        click.echo()
        rows = [_task_row(task) for task in job.execution]
        show_table(("ID", "POSITION", "NAME", "STATE", "STARTED", "NODE", "ERROR"), rows, "")
    if job.execution_truncated:
        say_on_stderr("showing only the newest tasks; GET /jobs/ID/tasks returns all of them")


def _task_row(task: Task) -> tuple[str, ...]:
    error = (task.error or "").splitlines()
    return (
        task.id,
        str(task.position),
        task.name,
        task.state,
        moment(task.started_at),
        task.node_id,
        error[0] if error else "",
    )


def _each(
    client: Client, change: Callable[[Client, str], Coroutine[Any, Any, None]], ids: Sequence[str]
) -> int:
    """Do the same to each job; say which could not be, and go on with the rest."""

    async def changed(client: Client) -> int:
        code = 0
        for job_id in ids:
            try:
                await change(client, job_id)
            except ApiError as error:
                complain(f"{job_id}: {error}")
                code = FAULT
        return code

    return ask(client, changed)


@click.command("cancel")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@asks_server
def cancel_command(client: Client, job_ids: tuple[str, ...]) -> int:
    """Cancel running jobs."""
    return _each(client, Client.cancel, job_ids)


@click.command("restart")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@asks_server
def restart_command(client: Client, job_ids: tuple[str, ...]) -> int:
    """Restart failed or cancelled jobs at the task where they stopped."""
    return _each(client, Client.restart, job_ids)


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@asks_server
def delete(client: Client, job_ids: tuple[str, ...]) -> int:
    """Delete ended jobs with their tasks and logs."""
    return _each(client, Client.delete, job_ids)


JOBS_COMMANDS: Final = (submit, jobs, job, cancel_command, restart_command, delete)
