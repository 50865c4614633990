"""Writes every document and message of the version on the path, or reads what another one wrote. Run as a process.

Each is written with nothing but what it must have, and with all fields filled, once for each word that one can hold.
"""

from __future__ import annotations

import base64
import json
import sys
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import msgspec.inspect as inspect

from coordinator.store.codec import Codec
from shared.model import documents, messages

MOST_WORDS = 12
"""No field has more words to choose from."""

DEEPEST = 4
"""Structs so deep inside others have only what they must: a task may hold tasks."""

SCALARS: dict[type[inspect.Type], Any] = {
    inspect.StrType: "a",
    inspect.IntType: 1,
    inspect.FloatType: 0.5,
    inspect.BoolType: True,
    inspect.AnyType: {"a": [1, "b"]},
}

KINDS = [*documents.DOCUMENTS, *typing.get_args(messages.AnyMessage)]


def made(kind: type[Any], turn: int = 0, depth: int = 0) -> Any:
    """Return one of a kind, each field at its `turn`-th word; what would be deeper than `DEEPEST` is left out."""
    return msgspec.convert(_value(inspect.type_info(kind), turn, depth), kind)


def _value(described: inspect.Type, turn: int, depth: int) -> Any:
    match described:
        case inspect.StructType():
            return _fields(described, turn, depth)
        case inspect.EnumType(cls=words):
            return list(words)[turn % len(words)].value
        case inspect.UnionType(types=types):
            some = [each for each in types if not isinstance(each, inspect.NoneType)]
            return _value(some[turn % len(some)], turn, depth)
        case inspect.Metadata(type=inner):
            return _value(inner, turn, depth)
        case inspect.ListType(item_type=item):
            return [_value(item, turn, depth)]
        case inspect.DictType(value_type=item):
            return {"a.$b": _value(item, turn, depth)}
        case _:
            return SCALARS[type(described)]


def _fields(described: inspect.StructType, turn: int, depth: int) -> dict[str, Any]:
    found = {
        field.encode_name: _value(field.type, turn, depth + 1)
        for field in described.fields
        if field.required or depth < DEEPEST
    }
    if described.tag_field is not None:
        found[described.tag_field] = described.tag
    return found


def write() -> Iterator[tuple[str, str]]:
    """Yield name and content of everything, each different one once: whole, or with parts that have only what they
    must, or being such itself."""
    seen = set()
    for kind in KINDS:
        whole = (made(kind, turn) for turn in range(MOST_WORDS))
        for each in (made(kind, depth=DEEPEST), made(kind, depth=DEEPEST - 1), *whole):
            content = base64.b64encode(msgspec.msgpack.encode(_rests(each))).decode()
            if content not in seen:
                seen.add(content)
                yield kind.__name__, content


def _rests(what: Any) -> Any:
    return Codec().encode(what) if isinstance(what, documents.Document) else what


def read(name: str, content: str) -> str:
    """Return why this version can't read it; empty where it can, or knows no such kind."""
    kind = {kind.__name__: kind for kind in KINDS}.get(name)
    packed = base64.b64decode(content)
    try:
        if kind is not None and issubclass(kind, documents.Document):
            Codec().decode(kind, msgspec.msgpack.decode(packed))
        elif kind is not None:
            msgspec.msgpack.decode(packed, type=kind)
    except Exception as error:
        return f"{name}: {error}"
    return ""


if __name__ == "__main__":
    if sys.argv[1] == "write":
        sys.stdout.writelines(f"{name} {content}\n" for name, content in write())
    else:
        json.dump([why for line in sys.stdin if (why := read(*line.split()))], sys.stdout)
