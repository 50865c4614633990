"""`haulier schedule`: scheduled jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import click

from haulier.cli.calls import MAY_BE_MADE, Parting, ask, asks_server
from haulier.cli.forms import Form, follow_option, json_option, prints, tell
from haulier.cli.job_file import JobFile
from haulier.cli.lists import Listing, change_command, id_argument, lists, meant, show_list
from haulier.cli.output import show_fields, show_json
from haulier.cli.submit import follow_or_tell, refused
from haulier.cli.times import moment, relative, wall_time
from haulier.cli.tree import left_running, short
from haulier.client import Client, path_name
from haulier.errors import ApiError
from haulier.results import ScheduledJob


@click.group()
def schedule() -> None:
    """Jobs that are made again and again, or once at a time to come."""


def _schedule_row(each: ScheduledJob, at: datetime) -> tuple[str, ...]:
    return (
        short(each.id),
        each.name,
        each.state,
        each.cron or "once",
        each.timezone,
        relative(each.next_at, at),
        relative(each.last_at, at),
    )


_SCHEDULES: Final = Listing(
    path="/scheduled-jobs",
    kind=ScheduledJob,
    noun="scheduled job",
    headings=("ID", "NAME", "STATE", "CRON", "ZONE", "NEXT", "LAST"),
    row=_schedule_row,
    name=lambda each: each.id,
    empty="no scheduled jobs",
    flexible=("NAME", "CRON"),
    optional=("NEXT", "ZONE", "LAST"),
    size=20,
    most=20,
)


@schedule.command("add")
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
@prints()
@asks_server
def add_schedule(client: Client, form: Form, file: str) -> int:
    """Schedule the job in FILE, which has a schedule; - reads standard input."""
    document = JobFile(file)

    async def added(client: Client) -> ScheduledJob:
        return await client.schedule(document.body, content_type=document.content_type)

    try:
        made = ask(client, added)
    except ApiError as error:
        if error.status != 400:
            raise
        return refused(document, document.body, error)
    first = f", first at {moment(made.next_at, wall_time(client))}" if made.next_at else ""
    text = f"scheduled {made.name} as {short(made.id)}{first}"
    tell(form, text, id=made.id, name=made.name, state=made.state)
    return 0


@schedule.command("list")
@lists(_SCHEDULES)
@asks_server
def show_schedules(client: Client, form: Form) -> int:
    """List the scheduled jobs, newest first."""
    return show_list(client, form, _SCHEDULES)


@schedule.command("show")
@id_argument(_SCHEDULES, "which")
@json_option
@asks_server
def show(client: Client, which: str, as_json: bool) -> int:
    """Show a scheduled job: when it fires next, and what it made last."""

    async def answer(client: Client) -> tuple[ScheduledJob, bytes]:
        found = await meant(client, _SCHEDULES, which)
        return found, await client.request("GET", f"/scheduled-jobs/{path_name(found.id)}")

    found, body = ask(client, answer)
    if as_json:
        show_json(body)
        return 0
    at = wall_time(client)
    show_fields(
        [
            ("id", found.id),
            ("name", found.name),
            ("description", found.description),
            ("state", found.state),
            ("cron", found.cron),
            ("zone", found.timezone),
            ("at", moment(found.at, at)),
            ("next", "\n".join(moment(time, at) for time in found.next)),
            ("last", moment(found.last_at, at)),
            ("last job", found.last_job_id),
            ("error", found.error),
        ]
    )
    return 0


@schedule.command("run")
@id_argument(_SCHEDULES, "which")
@follow_option
@prints()
@asks_server
def run(client: Client, form: Form, which: str, follow: bool) -> int:
    """Make a job of it now, besides its firings."""

    parting = Parting(MAY_BE_MADE)

    async def made(client: Client) -> int:
        job = await client.run_scheduled_job((await meant(client, _SCHEDULES, which)).id)
        parting.text = left_running(job.id)
        done = f"made {job.name}: job {job.id}"
        return await follow_or_tell(client, job, done, form, follow=follow)

    return ask(client, made, parting)


for _command in (
    ("pause", "Let it make no jobs for now.", Client.pause_scheduled_job, "paused"),
    ("resume", "Let it go on.", Client.resume_scheduled_job, "resumed"),
    ("rm", "Delete it; its jobs stay.", Client.delete_scheduled_job, "deleted"),
):
    schedule.add_command(
        change_command(_SCHEDULES, *_command, f"{_command[-1]} {{name}} ({{short}})")
    )
