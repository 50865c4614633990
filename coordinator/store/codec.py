"""Converts documents to the plain maps that every datastore adapter stores, and back.

A field is **open** where its type is flat (a scalar, a list of scalars, a map from text to scalars,
a struct of scalars, a list of such): a store sees into it, can match it and index it. Any other
field, and every field of `sealed`, is **closed**: it rests as one MessagePack value, in which no
store meddles. So names with dots and dollars, whole 64-bit numbers, NaN and bytes come back as they
were. With a vault a sealed field that is not empty rests as text, `sealed:` and the vault's token
of that MessagePack.

What is None is absent. Keys of open maps are escaped (`%2E` for a dot), as MongoDB and JSON paths
need.
"""

from __future__ import annotations

import enum
import functools
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
import msgspec.inspect as inspect

from coordinator.store.port import Unstorable
from shared.encryption import Vault
from shared.errors import Unreadable, WrongKey
from shared.model.documents import Document, Intent, Locked
from shared.model.states import Word

_D = TypeVar("_D", bound=Document)

SEALED_PREFIX = "sealed:"
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024 - 64 * 1024
"""The most that a document may hold in any store: MongoDB's limit, less room for what surrounds it.
"""
MAX_INT = 2**63 - 1

_SPECIAL_IN_KEY = re.compile(r"""[%.$"'\\\[\]\x00-\x1f]""")


class FieldShape(enum.Enum):
    """What a field's value is, as a store sees it."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"
    LIST = "list"
    MAP = "map"
    STRUCT = "struct"
    CLOSED = "closed"
    THEN = "then"


_SCALARS: Mapping[type[inspect.Type], FieldShape] = {
    inspect.StrType: FieldShape.TEXT,
    inspect.EnumType: FieldShape.TEXT,
    inspect.IntType: FieldShape.INTEGER,
    inspect.FloatType: FieldShape.NUMBER,
    inspect.BoolType: FieldShape.FLAG,
}


class StoredField(msgspec.Struct, frozen=True):
    """A field of a document: its Python name, its name in a store, and how it rests."""

    name: str
    stored: str
    shape: FieldShape
    type: Any
    sealed: bool = False
    keys: Mapping[str, str] = {}
    """Of a struct: the Python names of its fields → their names in a store."""
    read: Callable[[Any], Any] | None = None
    """Makes the value of what rests, opened where it is sealed; None where that is the value itself."""
    write: Callable[[Any], Any] = msgspec.msgpack.encode
    """Makes of the value what rests."""


class _Words(dict[str, Word]):
    """A set of words by their texts: quicker than asking the enumeration, which is asked for unknown ones."""

    def __init__(self, words: type[Word]) -> None:
        super().__init__({word.value: word for word in words})
        self._words = words

    def __missing__(self, text: str) -> Word:
        return self._words(text)


@functools.cache
def fields_of(kind: type[Document]) -> Mapping[str, StoredField]:
    """Return the fields of a kind by their Python names."""
    hints = typing.get_type_hints(kind)
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return {field.name: _field(kind, field, hints[field.name]) for field in described.fields}


def _field(kind: type[Document], field: inspect.Field, hint: Any) -> StoredField:
    sealed = field.name in kind.sealed
    inner = _without_none(field.type)
    shape = FieldShape.CLOSED if sealed else _shape(inner)
    if field.name == "then":
        shape = FieldShape.THEN
    keys = _struct_keys(inner) if shape is FieldShape.STRUCT else {}
    read, write = _reader(shape, inner, hint), _WRITERS.get(shape, _scalar)
    return StoredField(field.name, field.encode_name, shape, hint, sealed, keys, read, write)


def _reader(shape: FieldShape, inner: inspect.Type, hint: Any) -> Callable[[Any], Any] | None:
    match shape:
        case FieldShape.CLOSED:
            return msgspec.msgpack.Decoder(hint).decode
        case FieldShape.TEXT if isinstance(inner, inspect.EnumType) and issubclass(inner.cls, Word):
            return _Words(inner.cls).__getitem__
        case FieldShape.THEN:
            return _read_then
        case FieldShape.MAP:
            return _read_map
        case FieldShape.LIST | FieldShape.STRUCT:
            return functools.partial(msgspec.convert, type=hint, strict=False)
        case FieldShape.FLAG:
            return bool
        case FieldShape.NUMBER:
            return float
        case _:
            return None


def _struct_keys(described: inspect.Type) -> dict[str, str]:
    assert isinstance(described, inspect.StructType)
    return {field.name: field.encode_name for field in described.fields}


def _without_none(described: inspect.Type) -> inspect.Type:
    if isinstance(described, inspect.Metadata):
        return _without_none(described.type)
    if isinstance(described, inspect.UnionType):
        some = [each for each in described.types if not isinstance(each, inspect.NoneType)]
        return _without_none(some[0]) if len(some) == 1 else described
    return described


def _shape(described: inspect.Type) -> FieldShape:
    if _is_scalar(described):
        return _SCALARS[type(described)]
    if isinstance(described, inspect.ListType) and _is_flat(described.item_type):
        return FieldShape.LIST
    if isinstance(described, inspect.DictType) and _is_scalar(described.value_type):
        return FieldShape.MAP
    return FieldShape.STRUCT if _is_flat(described) else FieldShape.CLOSED


def _is_scalar(described: inspect.Type) -> bool:
    return type(_without_none(described)) in _SCALARS


def _is_flat(described: inspect.Type) -> bool:
    described = _without_none(described)
    if isinstance(described, inspect.StructType):
        return all(_is_scalar(field.type) for field in described.fields)
    return _is_scalar(described)


def stored_key(key: str) -> str:
    """Return a map's key as it rests: without what a path in a store could take for its own."""
    return _SPECIAL_IN_KEY.sub(lambda found: f"%{ord(found[0]):02X}", key) or "%"


def key_of(stored: str) -> str:
    """Return the key that rests as `stored`."""
    return "" if stored == "%" else unquote(stored)


class Codec:
    """Turns documents into plain maps (Python field name → what rests) and back, with or without a
    vault.
    """

    def __init__(self, vault: Vault | None = None) -> None:
        self._vault = vault

    def encode(self, document: Document) -> dict[str, Any]:
        """Return all that is present. Raises `Unstorable`."""
        stored: dict[str, Any] = {}
        for name, field in fields_of(type(document)).items():
            value = self.encode_value(field, getattr(document, name))
            if value is not None:
                stored[name] = value
        refuse_oversize(f"{document.noun()} {document.id}", stored.values())
        return stored

    def decode(self, kind: type[_D], stored: Mapping[str, Any]) -> _D:
        """Return the document; what it holds sealed and can't be opened here is `Locked`. Raises `Unreadable` where it
        is not a `kind`."""
        fields = fields_of(kind)
        try:
            return kind(
                **{
                    name: value if field.read is None else self._read(kind, stored, field)
                    for name, value in stored.items()
                    if value is not None and (field := fields.get(name)) is not None
                }
            )
        except (msgspec.MsgspecError, TypeError) as error:
            raise _unreadable(kind, stored, error) from error

    def _read(self, kind: type[Document], stored: Mapping[str, Any], field: StoredField) -> Any:
        try:
            return self.decode_value(field, stored[field.name])
        except WrongKey as error:
            return Locked(WrongKey(f"{kind.noun()} {stored.get('id')}: {error}"))
        except msgspec.MsgspecError as error:
            if not field.sealed:
                raise
            return Locked(_unreadable(kind, stored, error))

    def encode_value(self, field: StoredField, value: Any) -> Any:
        """Return a field's value as it rests; None where it is absent. Raises `Unstorable`."""
        if value is None:
            return None
        try:
            return self._encode(field, value)
        except (OverflowError, UnicodeEncodeError, TypeError) as error:
            raise Unstorable(f"{field.name}: {error}") from None

    def _encode(self, field: StoredField, value: Any) -> Any:
        written = field.write(value)
        if self._vault is None or not field.sealed or value in ("", [], {}):
            return written
        return SEALED_PREFIX + self._vault.seal(written)

    def decode_value(self, field: StoredField, value: Any) -> Any:
        """Return the value that rests as `value`. Raises `WrongKey`."""
        if field.read is None:
            return value
        return field.read(self._opened(field, value) if field.shape is FieldShape.CLOSED else value)

    def _opened(self, field: StoredField, value: bytes | str) -> bytes:
        if isinstance(value, bytes):
            return value
        if self._vault is None:
            raise WrongKey(
                f"the field {field.stored!r} is encrypted, but no encryption.key is configured"
            )
        return self._vault.open(value.removeprefix(SEALED_PREFIX))


def _unreadable(kind: type[Document], stored: Mapping[str, Any], error: Exception) -> Unreadable:
    return Unreadable(f"stored {kind.noun()} {stored.get('id')}: {error}")


def _read_then(stored: Iterable[Mapping[str, Any]]) -> list[Intent]:
    return [_intent(each) for each in stored]


def _read_map(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {key_of(key): item for key, item in stored.items()}


def _write_then(intents: Iterable[Intent]) -> list[dict[str, Any]] | None:
    return [_stored_intent(intent) for intent in intents] or None


def _write_map(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {_scalar(stored_key(key)): _scalar(item) for key, item in entries.items()}


def _write_flat(value: Any) -> Any:
    return _checked(msgspec.to_builtins(value))


def _stored_intent(intent: Intent) -> dict[str, Any]:
    stored: dict[str, Any] = {"id": intent.id, "do": intent.do, "at": intent.at}
    if intent.args:
        stored["args"] = msgspec.msgpack.encode(intent.args)
    if intent.tries:
        stored["tries"] = intent.tries
    if intent.error:
        stored["error"] = intent.error
    return stored


def _intent(stored: Mapping[str, Any]) -> Intent:
    args = msgspec.msgpack.decode(stored["args"]) if "args" in stored else {}
    return Intent(
        id=stored["id"],
        do=stored["do"],
        at=stored["at"],
        args=args,
        tries=stored.get("tries", 0),
        error=stored.get("error", ""),
    )


def _scalar(value: Any) -> Any:
    """Return what every store keeps exactly; refuse what one of them would change."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, int):
        if not -MAX_INT - 1 <= value <= MAX_INT:
            raise OverflowError(f"{value} does not fit in 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise OverflowError(f"{value} is not a finite number")
    elif value is not None:
        raise TypeError(f"{type(value).__name__} is not a scalar")
    return value


def _checked(value: Any) -> Any:
    if isinstance(value, list):
        return [_checked(item) for item in value]
    if isinstance(value, dict):
        return {key: _checked(item) for key, item in value.items()}
    return _scalar(value)


_WRITERS: Mapping[FieldShape, Callable[[Any], Any]] = {
    FieldShape.CLOSED: msgspec.msgpack.encode,
    FieldShape.THEN: _write_then,
    FieldShape.MAP: _write_map,
    FieldShape.LIST: _write_flat,
    FieldShape.STRUCT: _write_flat,
}
"""How values of these shapes are made to rest; those of the others are scalars."""


def refuse_oversize(name: str, values: Iterable[Any]) -> None:
    """Raise `Unstorable` where what rests is more than a document may hold."""
    if sum(map(_weight, values)) > MAX_DOCUMENT_BYTES:
        raise Unstorable(f"{name} is larger than {MAX_DOCUMENT_BYTES} bytes")


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, int):
        return 8
    if isinstance(value, list):
        return sum(map(_weight, value))
    if isinstance(value, dict):
        return sum(map(_weight, value.values())) + sum(map(len, value))
    return 8
