"""From a document to the typed model: one walk over its nodes, led by the types, finds each problem and its place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import msgspec

from shared.expressions import Budget
from shared.model.checks import has_template, problems_of, syntax_problem, text_problem
from shared.model.decoding import scalars
from shared.model.decoding.json_reader import read_json_text
from shared.model.decoding.nodes import (
    MAX_NESTING,
    MAX_VALUES,
    MERGE,
    BadNode,
    BrokenText,
    DocumentNode,
    ListNode,
    MapEntry,
    MapNode,
    SourceLines,
    TextNode,
    own_entries,
)
from shared.model.decoding.yaml_reader import read_yaml
from shared.model.language import JobDefinition
from shared.model.plans import (
    BooleanPlan,
    FieldPlan,
    FilePlan,
    ListPlan,
    MapPlan,
    NumberPlan,
    Plan,
    StructPlan,
    TextPlan,
    TextRole,
    name_of,
    plan_of,
)
from shared.model.problems import (
    InvalidDocument,
    Path,
    Problem,
    path_text,
    quoted_text,
    suggestion,
)
from shared.model.rules import job_rules

ContentType = Literal["yaml", "json"]

SyntaxFault = Callable[[TextRole, str], str | None]
"""What is wrong with the syntax of a template or expression, or None."""

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
    if isinstance(root, TextNode) and root.bare and scalars.is_null(root.text):
        return "the document is empty"
    what = "text" if isinstance(root, TextNode) else "a list"
    return f"expected a job (a map with a name and tasks), got {what}"


def _refusal(text: str, message: str, offset: int | None) -> InvalidDocument:
    if offset is None:
        return InvalidDocument([Problem("", message)])
    place = SourceLines(text).place(offset)
    return InvalidDocument([Problem("", message, place.line, place.column)])


MAX_FAULTS: Final = 1_000
"""More than anyone reads; a body made of problems must not become an answer many times its size."""


class TooManyProblems(Exception):
    """Too many problems: the rest of the document is not checked."""


class ProblemReport:
    """All problems of one document, in the order of their places in it."""

    def __init__(self) -> None:
        self._found: list[tuple[Path, str, int | None]] = []
        self._lost: set[Path] = set()

    def lose(self, path: Path, message: str, offset: int | None) -> None:
        """Add a problem that leaves no value at all: nothing more can be said of what is under it."""
        self._lost.add(path)
        self.add(path, message, offset)

    def add(self, path: Path, message: str, offset: int | None) -> None:
        """Add a problem. Raises `TooManyProblems` past the limit."""
        self._found.append((path, message, offset))
        if len(self._found) >= MAX_FAULTS:
            self.stop(path, f"and more: only the first {MAX_FAULTS} problems are listed", offset)

    def stop(self, path: Path, message: str, offset: int | None) -> None:
        """Add a problem and raise `TooManyProblems`: nothing more is looked at."""
        self._found.append((path, message, offset))
        raise TooManyProblems

    def lost(self, path: Path) -> bool:
        """Return whether there is no value at this path because of a problem there or above it."""
        lengths = range(len(path) + 1) if self._lost else ()
        return any(path[:length] in self._lost for length in lengths)

    def __bool__(self) -> bool:
        return bool(self._found)

    def problems(self, text: str) -> list[Problem]:
        """Return the problems with their lines and columns, from the top of the document down."""
        lines = SourceLines(text)
        end = len(text) + 1
        found = sorted(self._found, key=lambda one: end if one[2] is None else one[2])
        return [_problem(path, message, offset, lines) for path, message, offset in found]


def _problem(path: Path, message: str, offset: int | None, lines: SourceLines) -> Problem:
    if offset is None:
        return Problem(path_text(path), message)
    place = lines.place(offset)
    return Problem(path_text(path), message, place.line, place.column)


class DocumentPlaces:
    """Finds where the parts of a document are; each map of it is read once, however many problems are in it."""

    def __init__(self, root: DocumentNode) -> None:
        self._root = root
        self._known: dict[int, dict[str, DocumentNode]] = {}

    def offset(self, path: Path) -> int:
        """Return the offset of the deepest node on a path that is there."""
        node = self._root
        for step in path:
            found = self._step(node, step)
            if found is None:
                break
            node = found
        return node.offset

    def _step(self, node: DocumentNode, step: str | int) -> DocumentNode | None:
        if isinstance(node, ListNode) and isinstance(step, int):
            return node.items[step] if step < len(node.items) else None
        if isinstance(node, MapNode) and isinstance(step, str):
            if id(node) not in self._known:
                self._known[id(node)] = _values(node)
            return self._known[id(node)].get(step)
        return None


def _values(node: MapNode) -> dict[str, DocumentNode]:
    """Return the values of a map by key, its own before those of its merges; each map is looked at once."""
    found: dict[str, DocumentNode] = {}
    waiting, seen = deque([node]), {id(node)}
    while waiting:
        own, merges, _ = own_entries(waiting.popleft())
        for name, entry in own.items():
            found.setdefault(name, entry.value)
        fresh = [m for m in merges if isinstance(m, MapNode) and id(m) not in seen]
        seen.update(map(id, fresh))
        waiting.extend(fresh)
    return found


_ABSENT: Final = msgspec.UNSET


class Walker:
    """Makes the value that a plan wants out of a node; what it cannot make, it reports.

    `bare_is_text`: a scalar without quotes is text where text is wanted (YAML, not JSON).
    `most_text`: characters of all texts together, aliases written out.
    """

    def __init__(
        self, report: ProblemReport, syntax: SyntaxFault, *, bare_is_text: bool, most_text: int
    ) -> None:
        self._report = report
        self._syntax = syntax
        self._bare_is_text = bare_is_text
        self._text_left = most_text
        self._nodes_left = MAX_VALUES
        self._path: list[str | int] = []
        self._depth = 0
        self._makers: dict[type, Callable[[Any, Any], Any]] = {
            TextPlan: self._text,
            NumberPlan: self._number,
            BooleanPlan: self._boolean,
            ListPlan: self._list,
            MapPlan: self._map,
            StructPlan: self.struct,
        }

    def value(self, node: DocumentNode, plan: Plan) -> Any:
        """Return the value, or UNSET where the node means nothing or has a problem."""
        self._spend(node)
        if isinstance(node, BadNode):
            return self._lose(node.message, node)
        if isinstance(plan, FilePlan):
            plan = plan.struct if isinstance(node, MapNode) else plan.text
        if isinstance(plan, TextPlan):
            return self._text(node, plan)
        if isinstance(node, TextNode) and node.bare and scalars.is_null(node.text):
            return _ABSENT
        self._depth += 1
        made = self._makers[type(plan)](node, plan)
        self._depth -= 1
        return made

    def struct(self, node: DocumentNode, plan: StructPlan) -> Any:
        """Return a Struct, always: what could not be made of it is left at its default."""
        values: dict[str, Any] = {}
        if not isinstance(node, MapNode):
            self._mismatch(node, plan)
            return plan.cls()
        for name, entry in self._entries(node).items():
            self._path.append(name)
            if (field := plan.fields.get(name)) is None:
                self._unknown(name, entry.key, plan)
            elif (made := self.value(entry.value, field.plan)) is not _ABSENT:
                values |= field.kept(made)
            self._path.pop()
        self._require(plan, values, node)
        return plan.cls(**values)

    def _require(self, plan: StructPlan, values: dict[str, Any], node: MapNode) -> None:
        for name, field in plan.fields.items():
            if field.required and _is_empty(values.get(field.attribute)):
                self._path.append(name)
                if not self._report.lost(tuple(self._path)):
                    self._problem(_required(field), node.offset)
                self._path.pop()

    def _unknown(self, name: str, key: TextNode, plan: StructPlan) -> None:
        why: dict[str, str] = getattr(plan.cls, "REFUSED", {})
        message = why.get(name) or f"unknown field{suggestion(name, plan.fields)}"
        self._problem(message, key.offset)

    def _list(self, node: DocumentNode, plan: ListPlan) -> Any:
        if not isinstance(node, ListNode):
            return self._mismatch(node, plan)
        for message in problems_of(node.items, plan.rules):
            self._problem(message, node.offset)
        made = []
        for index, item in enumerate(node.items):
            self._path.append(index)
            made.append(self._item(item, plan.item))
            self._path.pop()
        return made

    def _item(self, node: DocumentNode, plan: Plan) -> Any:
        made = self.value(node, plan)
        if made is not _ABSENT:
            return made
        if not self._report.lost(tuple(self._path)):
            self._mismatch(node, plan)
        return plan.cls() if isinstance(plan, StructPlan) else ""

    def _map(self, node: DocumentNode, plan: MapPlan) -> Any:
        if not isinstance(node, MapNode):
            return self._mismatch(node, plan)
        made = {}
        for name, entry in self._entries(node).items():
            self._path.append(name)
            self._check_text(name, plan.key, entry.key.offset)
            if (value := self.value(entry.value, plan.value)) is not _ABSENT:
                made[name] = value
            self._path.pop()
        return made

    def _entries(self, node: MapNode) -> dict[str, MapEntry]:
        own, merges, flaws = own_entries(node)
        for flaw in flaws:
            self._problem(flaw.message, flaw.offset, flaw.name)
        for source in merges:
            self._spend(source)
            if isinstance(source, BadNode):
                self._problem(source.message, source.offset, MERGE)
            elif not isinstance(source, MapNode):
                self._problem("a merge takes a map or a list of maps", source.offset, MERGE)
            else:
                self._merge(own, source)
        return own

    def _merge(self, own: dict[str, MapEntry], source: MapNode) -> None:
        self._depth += 1
        for name, entry in self._entries(source).items():
            self._spend(entry.key)
            own.setdefault(name, entry)
        self._depth -= 1

    def _text(self, node: DocumentNode, plan: TextPlan) -> Any:
        if not isinstance(node, TextNode):
            return self._mismatch(node, plan)
        text = node.text
        if node.bare and scalars.is_null(text):
            text = ""
        elif node.bare and not (self._bare_is_text or plan.loose):
            return self._mismatch(node, plan)
        self._spend_text(text, node)
        self._check_text(text, plan, node.offset)
        return text

    def _check_text(self, text: str, plan: TextPlan, offset: int) -> None:
        for message in self._text_problems(text, plan):
            self._problem(message, offset)

    def _text_problems(self, text: str, plan: TextPlan) -> list[str]:
        if problem := text_problem(text):
            return [problem]
        if text and plan.role is not TextRole.PLAIN and (problem := self._syntax(plan.role, text)):
            return [problem]
        known = plan.role is TextRole.PLAIN or not has_template(text)
        return problems_of(text, plan.rules) if known else []

    def _number(self, node: DocumentNode, plan: NumberPlan) -> Any:
        number = scalars.number(node.text) if isinstance(node, TextNode) and node.bare else None
        if plan.whole and isinstance(number, float):
            number = int(number) if number.is_integer() else None
        if number is None:
            return self._mismatch(node, plan)
        for message in problems_of(number, plan.rules):
            self._problem(message, node.offset)
        return number

    def _boolean(self, node: DocumentNode, plan: BooleanPlan) -> Any:
        value = scalars.boolean(node.text) if isinstance(node, TextNode) and node.bare else None
        return self._mismatch(node, plan) if value is None else value

    def _mismatch(self, node: DocumentNode, plan: Plan) -> Any:
        return self._lose(f"expected {name_of(plan)}, got {_what(node, plan)}", node)

    def _lose(self, message: str, node: DocumentNode) -> Any:
        self._report.lose(tuple(self._path), message, node.offset)
        return _ABSENT

    def _problem(self, message: str, offset: int, name: str | None = None) -> None:
        path: Path = (*self._path, name) if name is not None else tuple(self._path)
        self._report.add(path, message, offset)

    def _spend(self, node: DocumentNode) -> None:
        self._nodes_left -= 1
        if self._nodes_left < 0:
            message = f"too big: more than {MAX_VALUES} values after its aliases are expanded"
            self._report.stop(tuple(self._path), message, node.offset)
        if self._depth > MAX_NESTING:
            message = f"nested deeper than {MAX_NESTING} levels after its aliases are expanded"
            self._report.stop(tuple(self._path), message, node.offset)

    def _spend_text(self, text: str, node: DocumentNode) -> None:
        self._text_left -= len(text)
        if self._text_left < 0:
            message = "too big: its aliases expand to too much text"
            self._report.stop(tuple(self._path), message, node.offset)


def _is_empty(value: Any) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


def _required(field: FieldPlan) -> str:
    return "required: at least one" if isinstance(field.plan, ListPlan) else "required"


def _what(node: DocumentNode, plan: Plan) -> str:
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a map"
    assert isinstance(node, TextNode)
    return _what_scalar(node, plan)


def _what_scalar(node: TextNode, plan: Plan) -> str:
    if isinstance(plan, TextPlan):
        return f"{scalars.kind_of_bare(node.text)}: write it in quotes, {quoted_text(node.text)}"
    if node.bare:
        kind = scalars.kind_of_bare(node.text)
        if isinstance(plan, NumberPlan) and scalars.is_beyond(node.text):
            return f"{kind}, which is out of range"
        return kind if kind != "text" else f"the text {quoted_text(node.text)}"
    if _would_do(node.text, plan):
        return f"the text {quoted_text(node.text)}: write it without quotes"
    return f"the text {quoted_text(node.text)}"


def _would_do(text: str, plan: Plan) -> bool:
    if isinstance(plan, BooleanPlan):
        return scalars.boolean(text) is not None
    return isinstance(plan, NumberPlan) and scalars.number(text) is not None
