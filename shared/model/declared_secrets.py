"""Which values a job declares secret (job language spec, `secrets`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

import msgspec
import msgspec.inspect

from shared.model import language
from shared.redaction import Redactor

HIDDEN_FIELDS: Final = frozenset({"password", "secret"})
"""Fields that hold a secret, whatever it is."""
SHORTEST_BY_KEY: Final = 8
LONGEST_BY_KEY: Final = 4096
_BYTES_BY_KEY: Final = 16 * 1024
_HAVE_KEYS: Final = frozenset({"inputs", "env"})
_TELLING: Final = HIDDEN_FIELDS | _HAVE_KEYS | {"secrets"}


def secret_values(definition: language.JobDefinition) -> list[str]:
    """Return all values that `definition` declares secret, longest first.

    Those are its secrets, passwords of registries, keys of webhooks, and what its sub-jobs declare
    as it stands (not what a template of theirs will give).
    """
    values = {*definition.secrets.values(), *_declared(definition)}
    return sorted((value for value in values if value), key=len, reverse=True)


def hidden_values(definition: language.JobDefinition, key_patterns: Sequence[str]) -> list[str]:
    """Return the same, and the values of inputs and variables whose key says that they are secret: templates may bring
    them anywhere.

    Only texts of `SHORTEST_BY_KEY` to `LONGEST_BY_KEY` characters, so that no `true` or `4096` is hidden wherever it
    is; of many, the shortest first that have 16 KiB in all."""
    written = (each for each in _keyed(definition) if "{{" not in each[1])
    entries = [*definition.inputs.items(), *written]
    by_key = _by_key(entries, Redactor((), key_patterns).is_secret_key)
    return [*secret_values(definition), *by_key]


def keyed_values(task: language.TaskDefinition, is_secret_key: Callable[[str], bool]) -> list[str]:
    """Return the values of an evaluated task's variables whose key says that they are secret, in the same bounds."""
    return _by_key(_keyed(task), is_secret_key)


def _by_key(entries: Iterable[tuple[str, str]], is_secret_key: Callable[[str], bool]) -> list[str]:
    found = {
        text
        for key, text in entries
        if SHORTEST_BY_KEY <= len(text) <= LONGEST_BY_KEY and is_secret_key(key)
    }
    kept: list[str] = []
    left = _BYTES_BY_KEY
    for text in sorted(found, key=lambda text: (len(text), text)):
        left -= len(text.encode("utf-8", "surrogatepass"))
        if left >= 0:
            kept.append(text)
    return kept


def _keyed(node: msgspec.Struct) -> Iterator[tuple[str, str]]:
    for name, value in _told(node):
        if name in _HAVE_KEYS:
            yield from value.items()
        elif isinstance(value, msgspec.Struct):
            yield from _keyed(value)


def _declared(node: msgspec.Struct) -> Iterator[str]:
    for name, value in _told(node):
        if name in HIDDEN_FIELDS:
            yield from () if "{{" in value else (value,)
        elif name == "secrets":
            yield from (text for text in value.values() if "{{" not in text)
        elif isinstance(value, msgspec.Struct):
            yield from _declared(value)


def _told(node: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    """Yield what a part of a job tells of secrets by the field, and each part that may."""
    for name in _telling(type(node)):
        value = getattr(node, name)
        if isinstance(value, list):
            yield from ((name, item) for item in value)
        elif value:
            yield name, value


@cache
def _telling(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of a part of a job that hold what is declared secret, or parts that may."""
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    return tuple(
        field.name
        for field in described.fields
        if field.name in _TELLING or _holds_parts(field.type)
    )


def _holds_parts(described: msgspec.inspect.Type) -> bool:
    if isinstance(described, msgspec.inspect.Metadata):
        return _holds_parts(described.type)
    if isinstance(described, msgspec.inspect.UnionType):
        return any(_holds_parts(one) for one in described.types)
    if isinstance(described, msgspec.inspect.ListType):
        return _holds_parts(described.item_type)
    return isinstance(described, msgspec.inspect.StructType)
