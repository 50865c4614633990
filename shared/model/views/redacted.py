"""Redacts secrets in definitions and in what the engine makes of them (job language spec, `secrets`).

Free text loses the values of secrets; ids, states, numbers and names of fields are never touched.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec

from shared.model import language
from shared.model.declared_secrets import (
    HIDDEN_FIELDS,
    hidden_values,
    keyed_values,
    secret_values,
)
from shared.model.documents import MICROS_PER_SECOND, JobDocument, Micros, TaskDocument
from shared.model.states import JobState, ScheduleState, TaskState
from shared.redaction import EVERYTHING, KEY_PATTERNS, REDACTED, Redactor

_S = TypeVar("_S", bound=msgspec.Struct)

_FREE: Final = frozenset(
    {
        *("name", "description", "tags", "image", "run", "cmd", "entrypoint", "files"),
        *("file_templates", "url", "if_", "list", "output", "source", "username"),
    }
)
"""Fields of free text: texts, lists and maps of it."""

_PARTS: Final = ("tasks", "task", "pre", "post", "sidecars", "parallel", "each", "subjob")
"""Fields that hold or lead to tasks."""

_BY_KEY: Final = frozenset({"env", "inputs", "opts", "headers"})
"""Maps whose keys may say that a value is a secret."""

_REFERENCE: Final = re.compile(r"\s*\{\{\s*(?:secrets|inputs|tasks|job)\.\w+\s*\}\}\s*")
"""A template that only names a value, and so holds none: kept, so that a job can be sent again."""


def redacted(node: _S, redactor: Redactor) -> _S:
    """Return a part of a job's definition, or of an evaluated task, as it may be shown, and as a document has it."""
    return as_written(_redacted(node, redactor))


def as_written(node: _S) -> _S:
    """Return a part of a job's definition as a document has it, to be shown or read, never to be stored: files that
    are templates are among the others, in their own form."""
    changes: dict[str, Any] = {}
    for name in _PARTS:
        value = getattr(node, name, None)
        if value and (written := _parts_as_written(value)) is not value:
            changes[name] = written
    if isinstance(node, language.SmallTask) and node.file_templates:
        templates = {
            name: language.FileTemplate(template=text) for name, text in node.file_templates.items()
        }
        changes |= {"files": {**node.files, **templates}, "file_templates": {}}
    return msgspec.structs.replace(node, **changes) if changes else node


def _parts_as_written(value: Any) -> Any:
    if not isinstance(value, list):
        return as_written(value)
    written = [as_written(part) for part in value]
    return written if any(map(operator.is_not, written, value)) else value


def _redacted(node: _S, redactor: Redactor) -> _S:
    changes = {}
    for name in node.__struct_fields__:
        value = getattr(node, name)
        if value and not isinstance(value, int | float):
            shown = _field(name, value, redactor)
            if shown is not value:
                changes[name] = shown
    return msgspec.structs.replace(node, **changes) if changes else node


def _field(name: str, value: Any, redactor: Redactor) -> Any:
    if name in HIDDEN_FIELDS:
        return REDACTED
    if name in _BY_KEY:
        return _mapped(value, redactor)
    if name == "secrets":
        return {key: _unless_reference(text, REDACTED) for key, text in value.items()}
    if name in _FREE:
        return _free(value, redactor)
    return _nested(value, redactor)


def _mapped(values: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    shown = redactor.redact_map(values)
    return {key: _unless_reference(text, shown[key]) for key, text in values.items()}


def _unless_reference(text: str, shown: str) -> str:
    return text if only_names(text) else shown


def only_names(text: str) -> bool:
    """Tell whether a template only names a value, and so holds none."""
    return _REFERENCE.fullmatch(text) is not None


def hides(node: msgspec.Struct, name: str, redactor: Redactor) -> bool:
    """Tell whether anything in a field of a part of a job is not shown: a value by its key, a password of a registry,
    the key of a webhook, of sub-jobs too."""
    value = getattr(node, name)
    return _differ(msgspec.to_builtins(value), msgspec.to_builtins(_field(name, value, redactor)))


def _differ(value: Any, shown: Any) -> bool:
    if isinstance(value, dict):
        return any(_differ(each, shown[key]) for key, each in value.items())
    if isinstance(value, list):
        return any(map(_differ, value, shown))
    return bool(value != shown) and not only_names(value)


def tells(node: msgspec.Struct, redactor: Redactor) -> bool:
    """Tell whether a value that the redactor looks for is written anywhere in a part of a job, whatever the field."""
    return any(redactor.redact(text) != text for text in _texts(msgspec.to_builtins(node)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _free(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, str):
        return redactor.redact(value)
    if isinstance(value, Mapping):
        return {key: redactor.redact(text) for key, text in value.items()}
    return [redactor.redact(text) for text in value]


def _nested(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, msgspec.Struct):
        return _redacted(value, redactor)
    if isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
        return [_redacted(item, redactor) for item in value]
    return value


def secrets_of(job: JobDocument) -> list[str]:
    """Return all values that must not be shown of a job or one above it, longest first: those that are declared
    secret, and when it was made those whose key said so."""
    values = {*secret_values(job.definition), *job.inherited_secrets}
    return sorted(values, key=lambda value: (-len(value), value))


def redactor_of_job(job: JobDocument, key_patterns: Sequence[str] = KEY_PATTERNS) -> Redactor:
    """Return the redactor of a stored job: of what it, or one above it, declares secret; of everything, where what it
    declares can't be read."""
    return Redactor(EVERYTHING if job.locked else secrets_of(job), key_patterns)


def redactor_of_task(task: TaskDocument, redactor: Redactor) -> Redactor:
    """Return the redactor of what is shown of a task: that of its job, which does not know the values that templates
    gave to variables whose key says that they are secret."""
    if task.evaluated is None:
        return redactor
    return redactor.also(keyed_values(task.evaluated, redactor.is_secret_key))


def redactor_of(
    *definitions: language.JobDefinition, key_patterns: Sequence[str] = KEY_PATTERNS
) -> Redactor:
    """Return the redactor of a job. Hand in its root job's definition too where it has another."""
    values = {
        value for definition in definitions for value in hidden_values(definition, key_patterns)
    }
    return Redactor(values, key_patterns)


TimeText = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC, to the microsecond, with a Z."""


def _one_of(kinds: Iterable[str]) -> msgspec.Meta:
    return msgspec.Meta(extra_json_schema={"enum": [str(kind) for kind in kinds]})


JobStateText = Annotated[str, _one_of(JobState)]
TaskStateText = Annotated[str, _one_of(TaskState)]
ScheduleStateText = Annotated[str, _one_of(ScheduleState)]
NodeStatusText = Annotated[str, _one_of(("UP", "DOWN", "OFFLINE", "DRAINING"))]
RoleText = Annotated[str, _one_of(("viewer", "user", "operator", "admin"))]


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all views. A field that has its default value is left out; numbers have no default."""


def rfc3339(at: Micros | None) -> str:
    """Return a time as it is shown, "" for None."""
    if at is None:
        return ""
    seconds, micros = divmod(at, MICROS_PER_SECOND)
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{moment.isoformat()}.{micros:06d}Z"


LARGEST_TOLD: Final = 256 * 1024
"""Bytes of a summary, as JSON, that events and webhooks tell."""


def told(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary as events and webhooks tell it: without its largest fields, and `abridged`, where it would take
    more than `LARGEST_TOLD`. Who wants those asks for them."""
    sizes = {name: len(msgspec.json.encode(value)) for name, value in summary.items()}
    while sum(sizes.values()) > LARGEST_TOLD:
        del sizes[max(sizes, key=lambda name: sizes[name])]
    kept = {name: summary[name] for name in sizes}
    return kept if len(kept) == len(summary) else {**kept, "abridged": True}


def as_plain(view: View) -> dict[str, Any]:
    """Return a view as the plain map that its JSON is."""
    shown = msgspec.to_builtins(view)
    assert isinstance(shown, dict)
    return shown
