"""Redacts secrets in definitions and in what the engine makes of them (job language spec, `secrets`).

Free text loses the values of secrets; ids, states, numbers and names of fields are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
import msgspec.inspect

from shared.model import language
from shared.model.documents import MICROS_PER_SECOND, JobDocument, Micros
from shared.redaction import KEY_PATTERNS, REDACTED, Redactor

_S = TypeVar("_S", bound=msgspec.Struct)

_FREE: Final = frozenset(
    {
        *("name", "description", "tags", "image", "run", "cmd", "entrypoint", "files"),
        *("url", "if_", "list", "output", "source", "username"),
    }
)
"""Fields of free text: texts, lists and maps of it."""

_BY_KEY: Final = frozenset({"env", "inputs", "opts", "headers"})
"""Maps whose keys may say that a value is a secret."""

_HIDDEN: Final = frozenset({"password", "secret"})

_REFERENCE: Final = re.compile(r"\s*\{\{\s*(?:secrets|inputs|tasks|job)\.\w+\s*\}\}\s*")
"""A template that only names a value, and so holds none: kept, so that a job can be sent again."""


def redacted(node: _S, redactor: Redactor) -> _S:
    """Return a part of a job's definition, or of an evaluated task, as it may be shown."""
    changes = {}
    for name in node.__struct_fields__:
        value = getattr(node, name)
        if value and not isinstance(value, int | float):
            shown = _field(name, value, redactor)
            if shown is not value:
                changes[name] = shown
    return msgspec.structs.replace(node, **changes) if changes else node


def _field(name: str, value: Any, redactor: Redactor) -> Any:
    if name in _HIDDEN:
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
    return text if _REFERENCE.fullmatch(text) else shown


def _free(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, str):
        return redactor.redact(value)
    if isinstance(value, Mapping):
        return {key: redactor.redact(text) for key, text in value.items()}
    return [redactor.redact(text) for text in value]


def _nested(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, msgspec.Struct):
        return redacted(value, redactor)
    if isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
        return [redacted(item, redactor) for item in value]
    return value


def secret_values(definition: language.JobDefinition) -> list[str]:
    """Return all values that `definition` declares secret, longest first.

    Those are its secrets, passwords of registries, keys of webhooks, and what its sub-jobs declare
    as it stands (not what a template of theirs will give).
    """
    values = {*definition.secrets.values(), *_declared(definition)}
    return sorted((value for value in values if value), key=len, reverse=True)


def _declared(node: msgspec.Struct) -> Iterator[str]:
    for name in _telling(type(node)):
        value = getattr(node, name)
        if name in _HIDDEN:
            yield from () if "{{" in value else (value,)
        elif name == "secrets":
            yield from (text for text in value.values() if "{{" not in text)
        elif isinstance(value, list):
            for item in value:
                yield from _declared(item)
        elif value is not None:
            yield from _declared(value)


@cache
def _telling(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of a part of a job that hold what is declared secret, or parts that may."""
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    return tuple(
        field.name
        for field in described.fields
        if field.name in _HIDDEN or field.name == "secrets" or _holds_parts(field.type)
    )


def _holds_parts(described: msgspec.inspect.Type) -> bool:
    if isinstance(described, msgspec.inspect.Metadata):
        return _holds_parts(described.type)
    if isinstance(described, msgspec.inspect.UnionType):
        return any(_holds_parts(one) for one in described.types)
    if isinstance(described, msgspec.inspect.ListType):
        return _holds_parts(described.item_type)
    return isinstance(described, msgspec.inspect.StructType)


def secrets_of(job: JobDocument) -> list[str]:
    """Return all values that a job, or one above it, declares secret, longest first."""
    values = {*secret_values(job.definition), *job.inherited_secrets}
    return sorted(values, key=lambda value: (-len(value), value))


def redactor_of_job(job: JobDocument, key_patterns: Sequence[str] = KEY_PATTERNS) -> Redactor:
    """Return the redactor of a stored job: of what it, or one above it, declares secret."""
    return Redactor(secrets_of(job), key_patterns)


def redactor_of(
    *definitions: language.JobDefinition, key_patterns: Sequence[str] = KEY_PATTERNS
) -> Redactor:
    """Return the redactor of a job. Hand in its root job's definition too where it has another."""
    values = {value for definition in definitions for value in secret_values(definition)}
    return Redactor(values, key_patterns)


TimeText = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC, to the microsecond, with a Z."""


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all views. A field that has its default value is left out; numbers have no default."""


def rfc3339(at: Micros | None) -> str:
    """Return a time as it is shown, "" for None."""
    if at is None:
        return ""
    seconds, micros = divmod(at, MICROS_PER_SECOND)
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{moment.isoformat()}.{micros:06d}Z"


def as_plain(view: View) -> dict[str, Any]:
    """Return a view as the plain map that its JSON is."""
    shown = msgspec.to_builtins(view)
    assert isinstance(shown, dict)
    return shown
