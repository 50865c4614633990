"""Decodes a user's document strictly: `decode_job`."""

from functools import partial
from typing import Literal

from shared.expressions import Budget
from shared.model.checks import syntax_problem
from shared.model.decoding.json_reader import read_json_text
from shared.model.decoding.model_builder import (
    DocumentPlaces,
    ProblemReport,
    SyntaxFault,
    TooManyProblems,
    Walker,
)
from shared.model.decoding.nodes import BrokenText, DocumentNode, MapNode, SourceLines, TextNode
from shared.model.decoding.scalars import is_null
from shared.model.decoding.yaml_reader import read_yaml
from shared.model.language import JobDefinition
from shared.model.plans import plan_of
from shared.model.problems import InvalidDocument, Problem
from shared.model.rules import job_rules

ContentType = Literal["yaml", "json"]

_READERS = {"yaml": read_yaml, "json": read_json_text}
_TEXT_ALLOWANCE = 1 << 20  # characters that aliases may repeat in however small a body
_TEXT_FACTOR = 4
_BYTE_ORDER_MARK = "\ufeff"


def decode_job(
    body: bytes,
    content_type: ContentType,
    *,
    scheduled: bool = False,
    syntax: SyntaxFault | None = None,
) -> JobDefinition:
    """Return the job that a document describes, as it was written.

    `scheduled`: the document must have a `schedule` (else it must have none). Raises
    InvalidDocument with every problem of the document, each with its path, line and column. Time and
    memory are linear in the body, whatever it holds.
    """
    text = _decoded(body)
    if not text or text.isspace():
        raise _refusal(text, "the document is empty", 0)
    try:
        root = _READERS[content_type](text)
    except BrokenText as error:
        raise _refusal(text, str(error), error.offset) from None
    if not isinstance(root, MapNode):
        raise _refusal(text, _not_a_job(root), root.offset)
    if syntax is None:
        syntax = partial(syntax_problem, budget=Budget())
    report = ProblemReport()
    job = _walk(
        root, report, text, syntax, bare_is_text=content_type == "yaml", scheduled=scheduled
    )
    if job is None or report:
        raise InvalidDocument(report.problems(text))
    return job


def _walk(
    root: MapNode,
    report: ProblemReport,
    text: str,
    syntax: SyntaxFault,
    *,
    bare_is_text: bool,
    scheduled: bool,
) -> JobDefinition | None:
    most_text = max(_TEXT_FACTOR * len(text), _TEXT_ALLOWANCE)
    walker = Walker(report, syntax, bare_is_text=bare_is_text, most_text=most_text)
    try:
        job: JobDefinition = walker.struct(root, plan_of(JobDefinition))
        places = DocumentPlaces(root)
        for found in job_rules(job, scheduled=scheduled):
            if not found.moot(report.lost):
                report.add(found.path, found.message, places.offset(found.path))
    except TooManyProblems:
        return None
    return job


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        before = body[: error.start].decode("utf-8", "replace")
        message = f"not UTF-8: the byte 0x{body[error.start]:02x} is not part of any character"
        raise _refusal(before, message, len(before)) from None


def _not_a_job(root: DocumentNode) -> str:
    if isinstance(root, TextNode) and root.bare and is_null(root.text):
        return "the document is empty"
    what = "text" if isinstance(root, TextNode) else "a list"
    return f"expected a job (a map with a name and tasks), got {what}"


def _refusal(text: str, message: str, offset: int | None) -> InvalidDocument:
    if offset is None:
        return InvalidDocument([Problem("", message)])
    place = SourceLines(text).place(offset)
    return InvalidDocument([Problem("", message, place.line, place.column)])
