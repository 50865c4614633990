"""`haulier submit`: sends a job, and follows it if asked."""

from __future__ import annotations

import sys
from typing import Any

import click

from haulier.cli.calls import MAY_BE_MADE, Parting, ask, asks_server
from haulier.cli.forms import Form, follow_option, input_option, prints, secret_option, tell
from haulier.cli.general import EXIT_FAULT, EXIT_MISUSE
from haulier.cli.job_file import (
    JobFile,
    assignments,
    file_bytes,
    given_secrets,
    path_parts,
    say_faults,
    yaml_value,
)
from haulier.cli.logs import follow_job
from haulier.cli.output import complain, redraws, say_on_stderr, show_json
from haulier.cli.tree import left_running
from haulier.cli.watch import tell_end, watch_job
from haulier.client import Client
from haulier.errors import ApiError, MisuseError
from haulier.results import JobSummary


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
@follow_option
@input_option
@click.option(
    "--input-file",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Inputs from a file of NAME: VALUE pairs in YAML or JSON.",
)
@secret_option
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="PATH=VALUE",
    help="Another value for a field, such as tasks[0].image=alpine; VALUE is YAML.",
)
@click.option(
    "--idempotency-key", metavar="KEY", help="Return the existing job if this key was used before."
)
@prints()
@asks_server
def submit(
    client: Client,
    form: Form,
    file: str,
    follow: bool,
    idempotency_key: str | None,
    **given: Any,
) -> int:
    """Submit a job from FILE (YAML, or JSON if the name ends in .json); - reads standard input.

    With --follow the exit code is 0 only if the job COMPLETED; --json then prints the ended job, and -q its id alone.
    """
    document = JobFile(file)
    original = document.body
    _change(document, **given)
    parting = Parting(MAY_BE_MADE)

    async def submitted(client: Client) -> int:
        job = await client.submit(
            document.body, content_type=document.content_type, idempotency_key=idempotency_key
        )
        parting.text = left_running(job.id)
        done = f"submitted {job.name}: job {job.id}"
        return await follow_or_tell(client, job, done, form, follow=follow)

    try:
        return ask(client, submitted, parting)
    except ApiError as error:
        if error.status != 400:
            raise
        return refused(document, original, error)


def refused(document: JobFile, original: bytes, error: ApiError) -> int:
    """Say each fault of a file with its place; return the exit code of that."""
    say_faults(document.name, original, error, sent=document.body == original)
    if document.schedules() and "schedule" in str(error):
        complain("a job with a schedule is added by haulier schedule add")
        return EXIT_MISUSE
    return EXIT_FAULT


def _change(
    document: JobFile,
    inputs: tuple[str, ...],
    input_file: tuple[str, ...],
    secrets: tuple[str, ...],
    changes: tuple[str, ...],
) -> None:
    """Change the job as options say: files first, so that what is given one by one wins."""
    for file in input_file:
        for name, value in _inputs_in(file).items():
            document.change(["inputs", name], value)
    for name, value in assignments("--input", inputs).items():
        document.change(["inputs", name], value)
    for name, value in given_secrets(secrets).items():
        document.change(["secrets", name], value)
    for path, text in assignments("--set", changes).items():
        parts = path_parts(path)
        if not parts:
            raise MisuseError(f"--set: {path!r} is no path such as tasks[0].image")
        document.change(parts, yaml_value(text))


def _inputs_in(file: str) -> dict[str, str]:
    import yaml

    try:
        found = yaml.load(file_bytes(file), Loader=yaml.BaseLoader)  # noqa: S506 - texts only
    except (yaml.YAMLError, RecursionError) as error:
        raise MisuseError(f"{file}: no valid YAML: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise MisuseError(f"{file}: must have NAME: VALUE pairs, each value a text")
    return found


async def _followed(client: Client, job_id: str) -> int:
    """Follow a job: its tree and log on a terminal, its log in a pipe."""
    if not redraws():
        return await follow_job(client, job_id)
    ended = await watch_job(client, await client.job(job_id), with_log=True)
    tell_end(ended)
    return 0 if ended.state == "COMPLETED" else EXIT_FAULT


async def follow_or_tell(
    client: Client, job: JobSummary, done: str, form: Form, *, follow: bool
) -> int:
    """Follow a new job to its end, or say that it was made: by its id alone in a pipe."""
    if follow and not form.as_json and not form.quiet:
        say_on_stderr(f"job {job.id}")
        return await _followed(client, job.id)
    ended = await client.wait(job.id) if follow else job
    if form.as_json:
        show_json(await client.request("GET", f"/jobs/{job.id}"))
    else:
        tell(Form(quiet=form.quiet or not sys.stdout.isatty()), done, id=job.id)
    return EXIT_FAULT if ended.state in ("FAILED", "CANCELLED") else 0
