"""Endpoints for users and roles."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import structlog
from aiohttp import web

from coordinator.api.auth import ADMIN
from coordinator.api.context import Api, api_of
from coordinator.api.http import OK, HttpError, StatusView, answer, path_id, read_json_body
from coordinator.api.passwords import LONGEST, hash_password
from coordinator.api.routes import Body, Route
from coordinator.api.visibility import require_admin
from coordinator.store.port import SlotTaken
from shared.errors import NotAllowed, NotFound
from shared.ids import derived_id
from shared.model.documents import GUEST, RoleDocument, UserDocument
from shared.model.queries import Change
from shared.model.views import RoleView, UserView, role_view, user_view

log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"[^\s:/\x00-\x1f\x7f]{1,64}")
_TRIES: Final = 10


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new user. The user name can have up to 64 characters, without spaces, `:` or `/`."""

    username: str = ""
    password: str = ""
    name: str = ""


class NewRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new role."""

    name: str = ""


async def create_user(request: web.Request) -> web.StreamResponse:
    """Store a new user."""
    require_admin()
    new = await read_json_body(request, NewUser)
    _check_name("username", new.username)
    if not 1 <= len(new.password.encode("utf-8", "surrogatepass")) <= LONGEST:
        raise NotAllowed(f"password: required, at most {LONGEST} bytes")
    user = await _insert_user(api_of(request), new, roles=[])
    if user is None:
        raise NotAllowed(f"username: {new.username} is taken")
    return answer(user_view(user))


async def _insert_user(api: Api, new: NewUser, roles: list[str]) -> UserDocument | None:
    user = UserDocument(
        id=derived_id("user", new.username),
        username=new.username,
        name=new.name,
        password_hash=await hash_password(new.password),
        roles=roles,
        created_at=api.store.now(),
    )
    try:
        return user if await api.store.insert(user) else None
    except SlotTaken:
        return None


async def make_first_user(api: Api) -> None:
    """Make the role admin, and the configured first user who has it, where basic auth is on and they are missing."""
    settings = api.config.coordinator.middleware.basic_auth
    if not settings.enabled:
        return
    await api.store.insert(_role(api, ADMIN))
    if not (settings.username and settings.password):
        return
    if await api.store.find(UserDocument, {"username": settings.username}, limit=1):
        return
    new = NewUser(username=settings.username, password=settings.password)
    if await _insert_user(api, new, roles=[ADMIN]) is not None:
        log.info("created the first user", username=settings.username)


def _check_name(field: str, name: str) -> None:
    if not name:
        raise NotAllowed(f"{field}: required")
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise NotAllowed(f"{field}: 1 to 64 characters, without spaces, ':' or '/'")
    if field == "username" and name == GUEST.username:
        raise NotAllowed(f"{field}: {name} is taken")


async def list_users(request: web.Request) -> web.StreamResponse:
    """Answer all users."""
    require_admin()
    users = await api_of(request).store.find(UserDocument, {}, order=("username",))
    return answer([user_view(user) for user in users])


async def create_role(request: web.Request) -> web.StreamResponse:
    """Store a new role."""
    require_admin()
    new = await read_json_body(request, NewRole)
    _check_name("name", new.name)
    store = api_of(request).store
    role = _role(api_of(request), new.name)
    if not await store.insert(role):
        raise NotAllowed(f"name: {new.name} is taken")
    return answer(role_view(role))


def _role(api: Api, name: str) -> RoleDocument:
    return RoleDocument(id=derived_id("role", name), name=name, created_at=api.store.now())


async def list_roles(request: web.Request) -> web.StreamResponse:
    """Answer all roles."""
    roles = await api_of(request).store.find(RoleDocument, {}, order=("name",))
    return answer([role_view(role) for role in roles])


async def give_role(request: web.Request) -> web.StreamResponse:
    """Give a user a role; again, it changes nothing."""
    return await _change_roles(request, give=True)


async def take_role(request: web.Request) -> web.StreamResponse:
    """Take a role from a user; again, it changes nothing."""
    return await _change_roles(request, give=False)


async def _change_roles(request: web.Request, *, give: bool) -> web.StreamResponse:
    require_admin()
    store = api_of(request).store
    role = path_id(request, "role")
    if role != ADMIN and await store.get(RoleDocument, derived_id("role", role)) is None:
        raise NotFound("role not found")
    for _ in range(_TRIES):
        user = await _user(api_of(request), path_id(request, "name"))
        others = [other for other in user.roles if other != role]
        roles = [*others, role] if give else others
        if sorted(roles) == sorted(user.roles):
            return answer(OK)
        change = Change(
            kind=UserDocument,
            id=user.id,
            where={"rev": user.rev},
            set={"roles": sorted(roles), "rev": user.rev + 1},
        )
        if await store.change(change) is not None:
            return answer(OK)
    raise HttpError(503, "too many changes at once; try again")


async def _user(api: Api, username: str) -> UserDocument:
    found = await api.store.find(UserDocument, {"username": username}, limit=1)
    if not found:
        raise NotFound("user not found")
    return found[0]


_FORBIDDEN: Final = {403: "The caller is not an admin."}
_TAKEN: Final = {400: "A field is missing or wrong, or the name is taken.", **_FORBIDDEN}
_UNKNOWN: Final = {404: "The user or role does not exist.", **_FORBIDDEN}

USER_ROUTES: Final = (
    Route(
        method="POST",
        path="/users",
        handler=create_user,
        group="users",
        summary="Create a user",
        body=Body(NewUser),
        answer=UserView,
        errors=_TAKEN,
    ),
    Route(
        method="GET",
        path="/users",
        handler=list_users,
        group="users",
        summary="List the users",
        answer=list[UserView],
        errors=_FORBIDDEN,
    ),
    Route(
        method="POST",
        path="/roles",
        handler=create_role,
        group="users",
        summary="Create a role",
        body=Body(NewRole),
        answer=RoleView,
        errors=_TAKEN,
    ),
    Route(
        method="GET",
        path="/roles",
        handler=list_roles,
        group="users",
        summary="List the roles",
        answer=list[RoleView],
    ),
    Route(
        method="PUT",
        path="/users/{name}/roles/{role}",
        handler=give_role,
        group="users",
        summary="Assign a role to a user",
        answer=StatusView,
        errors=_UNKNOWN,
    ),
    Route(
        method="DELETE",
        path="/users/{name}/roles/{role}",
        handler=take_role,
        group="users",
        summary="Remove a role from a user",
        answer=StatusView,
        errors=_UNKNOWN,
    ),
)
