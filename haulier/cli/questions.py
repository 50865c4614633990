"""Commands about a job: why it waits or failed, running it again, waiting for it, its page."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime
from typing import Final

import click
import msgspec

from haulier.cli.answers import converted, decoded
from haulier.cli.calls import MAY_BE_MADE, Parting, ask, asks_server
from haulier.cli.forms import Form, follow_option, input_option, json_option, prints, secret_option
from haulier.cli.general import EXIT_FAULT
from haulier.cli.job_file import assignments, given_secrets
from haulier.cli.job_ids import job_argument, whole_id
from haulier.cli.output import (
    brief,
    complain,
    plain_text,
    say,
    say_fitting,
    show_fields,
    show_json,
    show_json_value,
    shown_width,
    wrapped,
)
from haulier.cli.submit import follow_or_tell
from haulier.cli.times import moment, parse_seconds, wall_time
from haulier.cli.tree import head_line, left_running, short
from haulier.client import Client, path_name
from haulier.errors import ApiError
from haulier.results import Job, RerunPlan, Step, Why


@click.command()
@job_argument()
@json_option
@asks_server
def why(client: Client, job_id: str, as_json: bool) -> int:
    """Say why the job or task ID does not run, or why it failed."""

    async def answer(client: Client) -> bytes:
        id = path_name(await whole_id(client, job_id))
        try:
            return await client.request("GET", f"/jobs/{id}/why")
        except ApiError as error:
            if error.status != 404:
                raise
        return await client.request("GET", f"/tasks/{id}/why")

    body = ask(client, answer)
    if as_json:
        show_json(body)
    else:
        _show_why(converted(decoded(body), Why), wall_time(client))
    return 0


def _show_why(found: Why, at: datetime) -> None:
    say_fitting(plain_text(found.message))
    show_fields(
        [
            ("task", f"{found.task.name} ({short(found.task.id)})" if found.task else ""),
            ("state", found.state),
            ("since", moment(found.since, at)),
            ("until", moment(found.until, at)),
            ("queue", found.queue),
            ("node", found.node_id),
            ("last line", brief(found.last_line)),
        ]
    )


@click.command()
@job_argument()
@input_option
@secret_option
@click.option(
    "--from",
    "start",
    metavar="STEP",
    help="Begin with this step, by name or position, and keep the results of those before it.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be kept and what would run, with -q the names of the latter.",
)
@follow_option
@prints()
@asks_server
def rerun(
    client: Client,
    form: Form,
    job_id: str,
    inputs: tuple[str, ...],
    secrets: tuple[str, ...],
    start: str | None,
    dry_run: bool,
    follow: bool,
) -> int:
    """Run a job again as a new job, with other inputs or from a step on."""
    changed = assignments("--input", inputs) or None
    known = given_secrets(secrets) or None
    begin: str | int | None = int(start) if start and start.isdecimal() else start
    parting = Parting("haulier: interrupted" if dry_run else MAY_BE_MADE)

    async def made(client: Client) -> int:
        id = await whole_id(client, job_id)
        if dry_run:
            plan = await client.plan_rerun(id, inputs=changed, secrets=known, start=begin)
            _show_plan(plan, form)
            return 0
        job = await client.rerun(id, inputs=changed, secrets=known, start=begin)
        parting.text = left_running(job.id)
        done = f"running {job.name} again: job {job.id}"
        return await follow_or_tell(client, job, done, form, follow=follow)

    return ask(client, made, parting)


def _show_plan(plan: RerunPlan, form: Form) -> None:
    if form.as_json:
        show_json_value(msgspec.to_builtins(plan))
        return
    if form.quiet:
        for step in plan.run:
            say(plain_text(step.name))
        return
    for word, steps in (("keep", plan.kept), ("run", plan.run)):
        for step in steps:
            _show_step(word, step)


def _show_step(word: str, step: Step) -> None:
    because = f": {plain_text(step.reason)}" if step.reason else ""
    lines = wrapped(f"{step.position}. {plain_text(step.name)}{because}", " " * 6, shown_width())
    say(f"{word:<4}  {lines[0].lstrip()}")
    for line in lines[1:]:
        say(line)


@click.command()
@job_argument("job_ids", nargs=-1, required=True)
@click.option(
    "--timeout", callback=parse_seconds, metavar="DURATION", help="Give up after this long, as 10m."
)
@prints()
@asks_server
def wait(client: Client, form: Form, job_ids: tuple[str, ...], timeout: float | None) -> int:
    """Wait until jobs have ended; exit with 0 only if all of them COMPLETED."""

    parting = Parting("haulier: no longer waiting; the jobs go on")

    async def ended(client: Client) -> list[Job]:
        ids = [await whole_id(client, id) for id in job_ids]
        async with asyncio.timeout(timeout):
            return [await client.wait(id) for id in ids]

    try:
        found = ask(client, ended, parting)
    except TimeoutError:
        complain("not all jobs have ended in time; they go on")
        return EXIT_FAULT
    if form.as_json:
        show_json_value([_brief(job) for job in found])
    else:
        at = wall_time(client)
        for job in found:
            say(plain_text(job.id) if form.quiet else head_line(job, at, shown_width()))
    return 0 if all(job.state == "COMPLETED" for job in found) else EXIT_FAULT


def _brief(job: Job) -> dict[str, str]:
    fields = {"id": job.id, "name": job.name, "state": job.state}
    return fields | {"result": job.result or "", "error": job.error or ""}


_HAS_BROWSER: Final = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")
"""Variables of which one says that this machine can show a page: without, launchers only complain."""


@click.command("open")
@job_argument(required=False)
@json_option
@asks_server
def open_command(client: Client, job_id: str | None, as_json: bool) -> int:
    """Open the web page of a job, or of all jobs, in the browser; in a pipe print its address."""
    path = ""
    if job_id:
        path = f"#/jobs/{path_name(ask(client, lambda client: _known_id(client, job_id)))}"
    url = f"{client.server}/{path}"
    if as_json:
        show_json_value({"url": url})
        return 0
    say(plain_text(url))
    if sys.stdout.isatty() and any(map(os.environ.get, _HAS_BROWSER)):
        click.launch(url)
    return 0


async def _known_id(client: Client, job_id: str) -> str:
    return (await client.job(await whole_id(client, job_id))).id
