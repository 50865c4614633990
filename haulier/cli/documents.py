"""`haulier validate`: checks job files without a server."""

from __future__ import annotations

import click

from haulier.cli.calls import FAULT
from haulier.cli.jobs import read_document
from haulier.cli.output import plain_text
from haulier.client import JSON_TYPE
from haulier.errors import HaulierError
from shared.model.decoding import decode_job
from shared.model.problems import InvalidDocument, Problem


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--scheduled", is_flag=True, help="The files are scheduled jobs, each with a schedule."
)
def validate(files: tuple[str, ...], scheduled: bool) -> int:
    """Check job files and report every error with its line and column; - reads standard input."""
    return max(_validate(file, scheduled) for file in files)


def _validate(file: str, scheduled: bool) -> int:
    try:
        body, content_type = read_document(file)
        job = decode_job(body, "json" if content_type == JSON_TYPE else "yaml", scheduled=scheduled)
    except InvalidDocument as error:
        for problem in error.problems:
            click.echo(f"{_place(file, problem)}: {plain_text(str(problem))}", err=True)
        return FAULT
    except HaulierError as error:
        click.echo(f"haulier: {plain_text(str(error))}", err=True)
        return FAULT
    click.echo(f"{file}: {plain_text(job.name)} is valid, {len(job.tasks)} task(s)")
    return 0


def _place(file: str, problem: Problem) -> str:
    name = "<stdin>" if file == "-" else file
    place = [number for number in (problem.line, problem.column) if number is not None]
    return ":".join([name, *map(str, place)])
