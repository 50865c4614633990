"""The settings as a flat list: each by its path, with its type, default and description."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal

import msgspec

from shared.config.schema import Config


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf of the tree."""

    path: str
    """As `worker.drain_timeout`."""
    kind: str
    """How it is written: bool, int, float, text, choice, list, or a finer kind of these."""
    default: Any
    description: str
    choices: tuple[str, ...] = ()
    secret: bool = False
    optional: bool = False
    """Whether an empty text stands for None."""
    least: float | None = None
    above: float | None = None
    most: float | None = None

    @property
    def is_map(self) -> bool:
        """Whether it takes keys of the user's, each a value of its own."""
        return self.kind == "slots"

    @property
    def is_list(self) -> bool:
        """Whether it is a list of texts."""
        return isinstance(self.default, tuple)

    @property
    def may_be_file(self) -> bool:
        """Whether it may stand in a file of its own, named by the setting with `_file` behind it: it is secret, or an
        address that may hold a password."""
        return self.secret or self.kind.endswith("-url")

    @property
    def variable(self) -> str:
        """Name of the environment variable that sets it; for a map, what the names begin with."""
        return "HAULIER_" + self.path.upper().replace(".", "_")


@cache
def settings() -> dict[str, Setting]:
    """Return all settings by path, in the order of the tree."""
    return {setting.path: setting for setting in _leaves(Config, "")}


@cache
def groups() -> frozenset[str]:
    """Return the paths of all groups: what lies above a setting."""
    parts = [path.split(".") for path in settings()]
    return frozenset(".".join(path[:depth]) for path in parts for depth in range(1, len(path)))


def _leaves(group: type[msgspec.Struct], prefix: str) -> Iterator[Setting]:
    for field in msgspec.structs.fields(group):
        path = prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _leaves(field.type, path + ".")
        else:
            yield _leaf(path, field)


def _leaf(path: str, field: msgspec.structs.FieldInfo) -> Setting:
    assert typing.get_origin(field.type) is Annotated, f"{path} has no description"
    inner, meta = typing.get_args(field.type)
    extra = meta.extra
    return Setting(
        path=path,
        kind=extra["kind"] or _kind(inner),
        default={} if field.default is msgspec.NODEFAULT else field.default,
        description=meta.description,
        choices=typing.get_args(inner) if typing.get_origin(inner) is Literal else (),
        secret=extra.get("secret", False),
        optional=isinstance(inner, types.UnionType),
        least=extra.get("least"),
        above=extra.get("above"),
        most=extra.get("most"),
    )


def _kind(inner: Any) -> str:
    origin = typing.get_origin(inner)
    if origin is Literal:
        return "choice"
    if origin is tuple:
        return "list"
    if inner == int | None:
        return "int"
    return {bool: "bool", int: "int", float: "float", str: "text"}[inner]
