"""Who a job's permissions name: users as they were created, not whoever has their name later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from coordinator.store.port import Store
from shared.errors import NotAllowed
from shared.model import language
from shared.model.documents import GUEST, Micros, RoleDocument, UserDocument
from shared.model.queries import In

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
    usernames = {each.user for each in permissions} - {"", GUEST.username}
    roles = {each.role for each in permissions} - {""}
    users = {"": "", GUEST.username: GUEST.username}
    if usernames:
        named = {"username": In(tuple(usernames))}
        users |= {user.username: user.reader for user in await store.find(UserDocument, named)}
    if roles:
        named = {"name": In(tuple(roles))}
        roles -= {role.name for role in await store.find(RoleDocument, named)}
    kept = []
    for index, permission in enumerate(permissions):
        if permission.user not in users:
            problem = f"permissions[{index}].user: there is no user {permission.user!r}"
            raise NotAllowed(problem)
        if permission.role in roles:
            problem = f"permissions[{index}].role: there is no role {permission.role!r}"
            raise NotAllowed(problem)
        user = users[permission.user]
        kept.append(meant.get(permission) or replace(permission, user=user))
    return kept
