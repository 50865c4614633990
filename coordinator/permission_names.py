"""Checks who a job's permissions name."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.store.port import Store
from shared.errors import NotAllowed
from shared.model import language
from shared.model.documents import GUEST, Document, RoleDocument, UserDocument


async def check_permissions(store: Store, permissions: Sequence[language.Permission]) -> None:
    """Raise `NotAllowed` where a permission names a user or a role that does not exist."""
    for index, permission in enumerate(permissions):
        user, role = permission.user, permission.role
        by_name: tuple[tuple[str, type[Document], str, str], ...] = (
            ("user", UserDocument, "username", "" if user == GUEST.username else user),
            ("role", RoleDocument, "name", role),
        )
        for noun, kind, field, name in by_name:
            if name and not await store.find(kind, {field: name}, limit=1):
                raise NotAllowed(f"permissions[{index}].{noun}: there is no {noun} {name!r}")
