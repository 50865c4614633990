"""The built-in roles, and what each may do: every role may do what those before it may."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

VIEWER: Final = "viewer"
"""Sees."""
USER: Final = "user"
"""Also submits jobs, and controls those it may see. Whoever has none of these roles is one."""
OPERATOR: Final = "operator"
"""Also drains workers, deletes queues, and sees and controls every job."""
ADMIN: Final = "admin"
"""Also manages users, roles and others' tokens, and reads the audit log."""

ROLES: Final = (VIEWER, USER, OPERATOR, ADMIN)


def role_of(names: Iterable[str]) -> str:
    """Return the strongest built-in role among `names`, `user` where there is none."""
    return max((name for name in names if name in ROLES), key=ROLES.index, default=USER)


def covers(role: str, needed: str) -> bool:
    """Tell whether `role` may do what needs `needed`."""
    return ROLES.index(role) >= ROLES.index(needed)


def weaker(one: str, other: str) -> str:
    """Return the weaker of two built-in roles."""
    return min(one, other, key=ROLES.index)
