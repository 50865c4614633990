"""Ways to read a document in a test."""

import textwrap

import msgspec

from shared.model.decoding import ContentType, decode_job
from shared.model.language import JobDefinition
from shared.model.problems import InvalidDocument, Problem


def job_of(
    text: str, content_type: ContentType = "yaml", *, scheduled: bool = False
) -> JobDefinition:
    return decode_job(textwrap.dedent(text).encode(), content_type, scheduled=scheduled)


def faults_of(
    text: str | bytes, content_type: ContentType = "yaml", *, scheduled: bool = False
) -> list[Problem]:
    body = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
    try:
        decode_job(body, content_type, scheduled=scheduled)
    except InvalidDocument as error:
        return error.problems
    raise AssertionError("the document was taken")


def messages_of(
    text: str | bytes, content_type: ContentType = "yaml", *, scheduled: bool = False
) -> list[str]:
    return [str(problem) for problem in faults_of(text, content_type, scheduled=scheduled)]


def task_problems(fields: str) -> list[str]:
    """What is said of a job with one task of these fields, in YAML's flow style."""
    return messages_of(f"{{name: j, tasks: [{{name: t, {fields}}}]}}")


def task_of(fields: str) -> dict[str, object]:
    """The one task of a job, as it reads back."""
    job = job_of(f"{{name: j, tasks: [{{name: t, {fields}}}]}}")
    written: dict[str, object] = msgspec.to_builtins(job.tasks[0])
    return written
