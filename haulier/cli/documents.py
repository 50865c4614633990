"""`haulier validate`: checks job files without a server."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from haulier.cli.forms import json_option
from haulier.cli.general import EXIT_FAULT
from haulier.cli.job_file import read_document, say_fault
from haulier.cli.output import complain, plain_text, say, show_json_value
from haulier.client import JSON_TYPE
from haulier.errors import HaulierError
from shared.model.decoding import ContentType, decode_job
from shared.model.language import JobDefinition
from shared.model.problems import InvalidDocument, Problem


@click.command()
@click.argument(
    "files", metavar="FILE...", type=click.Path(allow_dash=True), nargs=-1, required=True
)
@click.option(
    "--scheduled", is_flag=True, help="The files are scheduled jobs, each with a schedule."
)
@json_option
def validate(files: tuple[str, ...], scheduled: bool, as_json: bool) -> int:
    """Check job files and report every error with its line and column; - reads standard input."""
    checked = [_checked(file, scheduled) for file in files]
    if as_json:
        show_json_value([each.told() for each in checked])
    else:
        for each in checked:
            each.say()
    return EXIT_FAULT if any(each.problems or each.error for each in checked) else 0


class _Checked(msgspec.Struct, kw_only=True):
    """What came of a file: a job, or what is wrong."""

    file: str
    body: bytes = b""
    job: JobDefinition | None = None
    problems: tuple[Problem, ...] = ()
    error: str = ""

    def told(self) -> dict[str, Any]:
        faults = [
            {"line": each.line, "column": each.column, "message": str(each)}
            for each in self.problems
        ]
        faults += [{"line": None, "column": None, "message": self.error}] if self.error else []
        return {"file": self.file, "valid": self.job is not None, "errors": faults}

    def say(self) -> None:
        for problem in self.problems:
            _say_fault(self.file, self.body, problem)
        if self.error:
            complain(self.error)
        if self.job is not None:
            name, count = plain_text(self.job.name), len(self.job.tasks)
            say(plain_text(f"{self.file}: {name} is valid, {count} task{'s' * (count != 1)}"))


def _checked(file: str, scheduled: bool) -> _Checked:
    body = b""
    try:
        body, content_type = read_document(file)
        form: ContentType = "json" if content_type == JSON_TYPE else "yaml"
        return _Checked(file=file, job=decode_job(body, form, scheduled=scheduled))
    except InvalidDocument as error:
        return _Checked(file=file, body=body, problems=tuple(error.problems))
    except HaulierError as error:
        return _Checked(file=file, error=str(error))


def _say_fault(file: str, body: bytes, problem: Problem) -> None:
    name = "<stdin>" if file == "-" else file
    say_fault(name, body, str(problem), problem.line, problem.column)
