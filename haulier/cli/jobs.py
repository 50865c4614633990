"""Commands for jobs: list, show, cancel, restart, delete."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Final

import click

from haulier.cli.answers import converted, decoded
from haulier.cli.calls import ask, asks_server, with_tasks
from haulier.cli.forms import Form, all_option, prints, tell
from haulier.cli.job_ids import JOBS, job_argument, whole_id
from haulier.cli.lists import all_items, lists, show_list
from haulier.cli.output import (
    brief,
    complain,
    plain_text,
    say,
    show_fields,
    show_json_value,
    shown_width,
)
from haulier.cli.times import moment, wall_time
from haulier.cli.tree import ended_at, job_lines, short
from haulier.client import Client, path_name
from haulier.errors import ApiError
from haulier.results import STATES, Job

_MOST_TASKS: Final = 1000
"""Tasks on a page, at most."""


@click.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--query", metavar="TEXT", help="The same as WORD.")
@click.option(
    "--state",
    type=click.Choice(STATES, case_sensitive=False),
    metavar="STATE",
    help="Only jobs in this state.",
)
@click.option("--tag", metavar="TAG", help="Only jobs with this tag.")
@lists(JOBS)
@asks_server
def jobs(
    client: Client, form: Form, words: tuple[str, ...], query: str | None, **filters: str | None
) -> int:
    """List jobs, newest first; with WORDs those that have all of them.

    A WORD is looked for in name, description, tags and state; tag:x and tags:a,b filter by tag.
    """
    q = " ".join([*words, query or ""]).strip() or None
    return show_list(client, form, JOBS, q=q, **filters)


@click.command()
@job_argument()
@prints(all_option("Show all tasks of a large job."))
@asks_server
def job(client: Client, form: Form, job_id: str) -> int:
    """Show a job and its steps: where it failed and why, or why it waits.

    ID can be shortened to 6 digits or more, or @last: the newest job. With -q only the ids of its
    tasks are printed.
    """

    async def asked(client: Client) -> tuple[Any, Job | None, str]:
        id = await whole_id(client, job_id)
        if form.as_json:
            return await _as_data(client, path_name(id), whole=form.everything), None, ""
        whole = form.everything or form.quiet
        found = await with_tasks(client, await client.job(id), whole=whole)
        return None, found, "" if form.quiet else await _printed_last(client, found)

    data, found, said = ask(client, asked)
    if found is None:
        show_json_value(data)
    elif form.quiet:
        for task in found.execution:
            say(plain_text(task.id))
    else:
        show_job(found, wall_time(client), whole=form.everything, said=said)
    return 0


async def _as_data(client: Client, id: str, *, whole: bool) -> Any:
    """Return a job as the server answers it; `whole`: with all tasks of a large one."""
    data = decoded(await client.request("GET", f"/jobs/{id}"))
    if whole and converted(data, Job).execution_truncated:
        tasks = await all_items(client, f"/jobs/{id}/tasks", _MOST_TASKS)
        data |= {"execution": tasks, "executionTruncated": False}
    return data


async def _printed_last(client: Client, job: Job) -> str:
    """Return what the task printed last by which a job failed, if its error does not say so."""
    if job.state != "FAILED" or len((job.error or "").split("\n", 1)) > 1:
        return ""
    try:
        line = (await client.why(job.id)).last_line
    except ApiError:
        return ""
    return "" if line.startswith("pulling ") else line


def show_job(job: Job, at: datetime, *, whole: bool, said: str) -> None:
    """Print a job as a tree, then what else there is to know about it. `said`: what its failed task printed last."""
    for line in job_lines(job, at, shown_width(), whole=whole, said=said):
        say(line)
    say()
    show_fields(
        [
            ("id", job.id),
            ("description", job.description),
            ("tags", ", ".join(job.tags)),
            ("inputs", "\n".join(f"{name}={value}" for name, value in job.inputs.items())),
            ("parent", job.parent_id or ""),
            ("created", moment(job.created_at, at) + _by(job)),
            ("started", moment(job.started_at, at)),
            ("ended", moment(ended_at(job), at)),
            ("result", job.result or ""),
            ("error", brief(job.error or "")),
        ]
    )


def _by(job: Job) -> str:
    user = job.created_by.username if job.created_by else ""
    return f" by {plain_text(user)}" if user else ""


def _each(
    client: Client,
    change: Callable[[Client, str], Coroutine[Any, Any, None]],
    ids: Sequence[str],
    done: str,
    form: Form,
) -> int:
    """Do the same to each job and say so; say which could not be, and go on with the rest."""

    async def changed(client: Client) -> list[dict[str, Any]]:
        return [await _changed(client, change, id, done) for id in ids]

    outcomes = ask(client, changed)
    for outcome in [] if form.as_json else outcomes:
        if "error" in outcome:
            complain(f"{outcome['id']}: {outcome['error']}")
        else:
            tell(form, f"{done} {short(outcome['id'])}", id=outcome["id"])
    if form.as_json:
        show_json_value(outcomes)
    return max(int(outcome.get("code", 0)) for outcome in outcomes)


async def _changed(
    client: Client,
    change: Callable[[Client, str], Coroutine[Any, Any, None]],
    job_id: str,
    done: str,
) -> dict[str, Any]:
    from haulier.cli.main import exit_code_of

    try:
        id = await whole_id(client, job_id)
        await change(client, id)
    except ApiError as error:
        return {"id": job_id, "error": str(error), "code": exit_code_of(error)}
    return {"id": id, "status": done}


def _change_command(
    name: str, help: str, done: str, change: Callable[[Client, str], Coroutine[Any, Any, None]]
) -> click.Command:
    @click.command(name, help=help)
    @job_argument("job_ids", nargs=-1, required=True)
    @prints()
    @asks_server
    def command(client: Client, form: Form, job_ids: tuple[str, ...]) -> int:
        return _each(client, change, job_ids, done, form)

    return command


cancel_command = _change_command("cancel", "Cancel running jobs.", "cancelled", Client.cancel)
restart_command = _change_command(
    "restart",
    "Restart failed or cancelled jobs at the task where they stopped.",
    "restarted",
    Client.restart,
)
delete = _change_command(
    "delete", "Delete ended jobs with their tasks and logs.", "deleted", Client.delete
)
