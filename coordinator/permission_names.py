"""Who a job's permissions name: users as they were created, not whoever has their name later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from coordinator.store.port import Store
from shared.errors import NotAllowed
from shared.model import language
from shared.model.documents import GUEST, Micros, RoleDocument, UserDocument

_SINCE: Final = ":"
"""Stands between a user's name, which has none, and when the user was created."""


def reader_called(username: str, created_at: Micros) -> str:
    """Return what permissions call a user who is created."""
    return f"{username}{_SINCE}{created_at}"


def as_named(permissions: Sequence[language.Permission]) -> list[language.Permission]:
    """Return permissions that are kept with a job as its definition names them."""
    return [replace(each, user=each.user.partition(_SINCE)[0]) for each in permissions]


async def resolve_permissions(
    store: Store,
    permissions: Sequence[language.Permission],
    before: Sequence[language.Permission] = (),
) -> list[language.Permission]:
    """Return permissions as they are kept with a job. `before`: those kept with the job that it is made from, which
    go on to mean the same users. Raises `NotAllowed` where one names a user or a role that does not exist."""
    meant = dict(zip(as_named(before), before, strict=True))
    kept = []
    for index, permission in enumerate(permissions):
        user = await _user(store, permission.user, f"permissions[{index}].user")
        role = permission.role
        if role and not await store.find(RoleDocument, {"name": role}, limit=1):
            raise NotAllowed(f"permissions[{index}].role: there is no role {role!r}")
        kept.append(meant.get(permission) or replace(permission, user=user))
    return kept


async def _user(store: Store, name: str, place: str) -> str:
    """Return what permissions call the user of a name."""
    if not name or name == GUEST.username:
        return name
    found = await store.find(UserDocument, {"username": name}, limit=1)
    if not found:
        raise NotAllowed(f"{place}: there is no user {name!r}")
    return found[0].reader
