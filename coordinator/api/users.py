"""Endpoints for users and roles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from coordinator.api.audit import done_to
from coordinator.api.auth import IDENTITIES, LONGEST_USERNAME, user_named
from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import (
    OK,
    Body,
    HttpError,
    Route,
    StatusView,
    answer,
    path_id,
    read_json_body,
)
from coordinator.api.passwords import LONGEST, Passwords, password_bytes
from coordinator.api.roles import ADMIN, ROLES, VIEWER
from coordinator.permission_names import reader_called
from coordinator.store.port import SlotTaken
from shared.errors import NotAllowed, NotFound
from shared.ids import derived_id
from shared.model.documents import GUEST, RoleDocument, TokenDocument, UserDocument
from shared.model.queries import Change
from shared.model.views import RoleView, UserView, role_view, user_view

log = structlog.get_logger(__name__)

_NAME: Final = re.compile(rf"[^\s:/\x00-\x1f\x7f]{{1,{LONGEST_USERNAME}}}")
_LONGEST_NAME: Final = 256
_TRIES: Final = 10
ME: Final = "me"
"""Stands for the caller in paths, so nobody may be called so."""


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new user. The user name can have up to 64 characters, without spaces, `:` or `/`."""

    username: str
    password: str
    name: str = ""


class UserChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to change of a user; what is left out stays."""

    password: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET


class OwnPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new password. `current`: the present one, which a session must name too."""

    password: str
    current: str = ""


class NewRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new role."""

    name: str


async def create_user(request: web.Request) -> web.StreamResponse:
    """Store a new user."""
    new = await read_json_body(request, NewUser)
    _check_name("username", new.username)
    _check_password(new.password)
    _check_full_name(new.name)
    done_to(request, new.username)
    hashed = await request.app[IDENTITIES].hashed(new.password)
    user = await _insert_user(api_of(request), new, hashed, roles=[])
    if user is None:
        raise NotAllowed(f"username: {new.username} is taken")
    return answer(user_view(user))


async def _insert_user(
    api: Api, new: NewUser, hashed: str, roles: list[str], *, configured: bool = False
) -> UserDocument | None:
    now = api.store.now()
    user = UserDocument(
        id=derived_id("user", new.username),
        username=new.username,
        name=new.name,
        password_hash=hashed,
        configured_hash=hashed if configured else "",
        roles=roles,
        created_at=now,
        permitted_as=reader_called(new.username, now),
    )
    try:
        return user if await api.store.insert(user) else None
    except SlotTaken:
        return None


async def prepare_users(api: Api, passwords: Passwords) -> None:
    """Make the built-in roles, and where basic auth is on the configured first user, with its present password."""
    await api.store.insert_many([_role(api, name) for name in ROLES])
    settings = api.config.coordinator.middleware.basic_auth
    if not (settings.enabled and settings.username and settings.password):
        return
    if len(settings.username) > LONGEST_USERNAME:
        long = f"coordinator.middleware.basic_auth.username: at most {LONGEST_USERNAME} characters"
        raise NotAllowed(long)
    user = await user_named(api.store, settings.username)
    if user is not None:
        await _keep_configured(api, passwords, user, settings.password)
        return
    new = NewUser(username=settings.username, password=settings.password)
    hashed = await passwords.hash(new.password)
    if await _insert_user(api, new, hashed, roles=[ADMIN], configured=True) is not None:
        log.info("created the first user", username=settings.username)


async def _keep_configured(
    api: Api, passwords: Passwords, user: UserDocument, password: str
) -> None:
    """Give the first user the configured password where that is another than the configuration gave it last."""
    if await passwords.verify(user.configured_hash or user.password_hash, password):
        return
    hashed = await passwords.hash(password)
    fields = {"password_hash": hashed, "configured_hash": hashed}
    await _change_user(api, user.username, lambda _: fields)
    await _end_sessions(api, user.username)
    log.info("the first user has a new password, as configured", username=user.username)


def _check_name(field: str, name: str) -> None:
    if not name:
        raise NotAllowed(f"{field}: required")
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise NotAllowed(f"{field}: 1 to {LONGEST_USERNAME} characters, without spaces, ':' or '/'")
    if field == "username" and name in (GUEST.username, ME):
        raise NotAllowed(f"{field}: {name} is taken")


def _check_password(password: str) -> None:
    if not 1 <= len(password_bytes(password)) <= LONGEST:
        raise NotAllowed(f"password: required, at most {LONGEST} bytes")


def _check_full_name(name: str) -> None:
    if len(name) > _LONGEST_NAME:
        raise NotAllowed(f"name: at most {_LONGEST_NAME} characters")


async def list_users(request: web.Request) -> web.StreamResponse:
    """Answer all users."""
    users = await api_of(request).store.find(UserDocument, {}, order=("username",))
    return answer([user_view(user) for user in users])


async def change_user(request: web.Request) -> web.StreamResponse:
    """Change a user's password or name, or whether they may sign in; it holds from the next request on."""
    api, name = api_of(request), path_id(request, "name")
    asked = await read_json_body(request, UserChange)
    fields: dict[str, Any] = {}
    if isinstance(asked.name, str):
        _check_full_name(asked.name)
        fields["name"] = asked.name
    if isinstance(asked.disabled, bool):
        if asked.disabled:
            _refuse_oneself(name, "disable")
        fields["disabled"] = asked.disabled
    if isinstance(asked.password, str):
        _check_password(asked.password)
        fields["password_hash"] = await request.app[IDENTITIES].hashed(asked.password)
    user = await _change_user(api, name, lambda _: fields)
    if "password_hash" in fields:
        await _end_sessions(api, name)
    return answer(user_view(user))


def _refuse_oneself(name: str, what: str) -> None:
    """Keep admins from locking themselves out: so there is always one left."""
    if caller().actor.username == name:
        raise NotAllowed(f"you can not {what} yourself; another admin can")


async def change_own_password(request: web.Request) -> web.StreamResponse:
    """Change the caller's own password; their sessions end."""
    api, me = api_of(request), caller()
    done_to(request, me.actor.username)
    asked = await read_json_body(request, OwnPassword)
    if me.how == "token":
        raise HttpError(403, "a token can not change a password: sign in with the present one")
    if me.actor.username == GUEST.username:
        raise NotAllowed("you are not signed in as a user")
    if me.how == "session" or asked.current:
        await _check_current(request, me.actor.username, asked.current)
    _check_password(asked.password)
    hashed = await request.app[IDENTITIES].hashed(asked.password)
    await _change_user(api, me.actor.username, lambda _: {"password_hash": hashed})
    await _end_sessions(api, me.actor.username)
    return answer(OK)


async def _check_current(request: web.Request, username: str, current: str) -> None:
    identities = request.app[IDENTITIES]
    if await identities.sign_in(request, username, current) is None:
        await identities.slow_down(request, username)
        raise NotAllowed("current: must be your present password")


async def _end_sessions(api: Api, username: str) -> None:
    await api.store.delete(TokenDocument, {"username": username, "session": True})


async def delete_user(request: web.Request) -> web.StreamResponse:
    """Delete a user, their tokens and sessions; their jobs stay."""
    api, name = api_of(request), path_id(request, "name")
    _refuse_oneself(name, "delete")
    if not await api.store.delete(UserDocument, {"username": name}):
        raise NotFound("user not found")
    await api.store.delete(TokenDocument, {"username": name})
    return answer(OK)


async def create_role(request: web.Request) -> web.StreamResponse:
    """Store a new role."""
    new = await read_json_body(request, NewRole)
    _check_name("name", new.name)
    done_to(request, new.name)
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
    api, role, name = api_of(request), path_id(request, "role"), path_id(request, "name")
    if await api.store.get(RoleDocument, derived_id("role", role)) is None:
        raise NotFound("role not found")
    if role == ADMIN and not give:
        _refuse_oneself(name, "take the role admin from")

    def changed(user: UserDocument) -> Mapping[str, Any]:
        others = {other for other in user.roles if other != role}
        return {"roles": sorted(others | {role} if give else others)}

    await _change_user(api, name, changed)
    return answer(OK)


async def _change_user(
    api: Api, username: str, changed: Callable[[UserDocument], Mapping[str, Any]]
) -> UserDocument:
    """Give a user the fields that `changed` says, whoever else changes it; return the user as it is then."""
    for _ in range(_TRIES):
        user = await user_named(api.store, username)
        if user is None:
            raise NotFound("user not found")
        fields = changed(user)
        if all(getattr(user, name) == value for name, value in fields.items()):
            return user
        change = Change(
            kind=UserDocument,
            id=user.id,
            where={"rev": user.rev},
            set={**fields, "rev": user.rev + 1},
        )
        image = await api.store.change(change)
        if image is not None:
            return image
    raise HttpError(503, "too many changes at once; try again")


_TAKEN: Final = {400: "A field is missing or wrong, or the name is taken."}
_UNKNOWN: Final = {404: "The user or role does not exist."}

USER_ROUTES: Final = (
    Route(
        method="POST",
        path="/users",
        handler=create_user,
        group="users",
        summary="Create a user",
        body=Body(NewUser, example={"username": "ann", "password": "a-long-password"}),
        answer=UserView,
        errors=_TAKEN,
        role=ADMIN,
    ),
    Route(
        method="GET",
        path="/users",
        handler=list_users,
        group="users",
        summary="List the users",
        answer=list[UserView],
        role=ADMIN,
    ),
    Route(
        method="PUT",
        path="/users/me/password",
        handler=change_own_password,
        group="users",
        summary="Change your own password",
        body=Body(OwnPassword, example={"password": "a-new-password"}),
        answer=StatusView,
        errors={400: "The password is missing or too long, or `current` is wrong."},
        role=VIEWER,
    ),
    Route(
        method="PUT",
        path="/users/{name}",
        handler=change_user,
        group="users",
        summary="Change, disable or enable a user",
        body=Body(UserChange, example={"disabled": True}),
        answer=UserView,
        errors={400: "A field is wrong, or it is yourself.", **_UNKNOWN},
        role=ADMIN,
    ),
    Route(
        method="DELETE",
        path="/users/{name}",
        handler=delete_user,
        group="users",
        summary="Delete a user",
        answer=StatusView,
        errors={400: "It is yourself.", **_UNKNOWN},
        role=ADMIN,
    ),
    Route(
        method="POST",
        path="/roles",
        handler=create_role,
        group="users",
        summary="Create a role",
        body=Body(NewRole, example={"name": "operators"}),
        answer=RoleView,
        errors=_TAKEN,
        role=ADMIN,
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
        role=ADMIN,
    ),
    Route(
        method="DELETE",
        path="/users/{name}/roles/{role}",
        handler=take_role,
        group="users",
        summary="Remove a role from a user",
        answer=StatusView,
        errors={400: "It is your own role `admin`.", **_UNKNOWN},
        role=ADMIN,
    ),
)
