"""Endpoints for tokens, which programs sign in with, and for the sessions of browsers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web

from coordinator.api.addresses import came_by_https
from coordinator.api.audit import done_to, record
from coordinator.api.auth import IDENTITIES, LONGEST_KEY, LONGEST_USERNAME, note_refused
from coordinator.api.context import Caller, api_of, caller
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
from coordinator.api.passwords import LONGEST, password_bytes
from coordinator.api.roles import ADMIN, ROLES, VIEWER, covers
from coordinator.api.token_texts import SESSION_COOKIE, found_token, new_token
from shared.durations import duration_seconds
from shared.errors import NotAllowed, NotFound
from shared.model.documents import MICROS_PER_SECOND, Micros, TokenDocument
from shared.model.queries import Above
from shared.model.views import NewTokenView, TokenView, new_token_view, token_view

_DAY: Final = 24 * 3600
DEFAULT_LIFE: Final = 90 * _DAY
LONGEST_LIFE: Final = 10 * 366 * _DAY
MOST_TOKENS: Final = 1000
"""Tokens that a user has at a time, so that a list of them has an end."""
SESSION_LIFE: Final = 12 * 3600
"""Seconds after which a browser must sign in again."""
_LONGEST_NAME: Final = 256


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new token. `role`: at most the caller's own, which is the default. `expires`: a time, or a duration from now
    on, such as `720h`; 90 days by default, at most 10 years."""

    name: str
    role: str = ""
    expires: str = ""


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signs in: a user name and a password, or the shared key or a token."""

    username: str = ""
    password: str = ""
    key: str = ""


async def create_token(request: web.Request) -> web.StreamResponse:
    """Store a new token of the caller, and answer its text: it is never shown again."""
    api, me = api_of(request), caller()
    asked = await read_json_body(request, NewToken)
    if not request.app[IDENTITIES].asked_for:
        raise NotAllowed("tokens need authentication: turn on basic_auth or key_auth")
    if me.how == "token":
        raise HttpError(403, "a token can not make tokens: sign in with a password or the key")
    if not asked.name.strip() or len(asked.name) > _LONGEST_NAME:
        raise NotAllowed(f"name: 1 to {_LONGEST_NAME} characters")
    role, now = _role(asked, me), api.store.now()
    where = {"username": me.actor.username, "session": False, "expires_at": Above(now)}
    if await api.store.count(TokenDocument, where, cap=MOST_TOKENS) >= MOST_TOKENS:
        raise NotAllowed(f"you have {MOST_TOKENS} tokens already: revoke one first")
    text, stored = new_token(
        name=asked.name,
        username=me.actor.username,
        bound_to=request.app[IDENTITIES].bond(me.actor),
        role=role,
        now=now,
        expires_at=_expiry(asked.expires, now),
    )
    done_to(request, stored.id)
    await api.store.insert(stored)
    return answer(new_token_view(stored, text))


def _role(asked: NewToken, me: Caller) -> str:
    role = asked.role or me.role
    if role not in ROLES:
        raise NotAllowed(f"role: must be one of {', '.join(ROLES)}")
    if not covers(me.role, role):
        raise HttpError(403, f"role: a token can have at most your own role, {me.role}")
    return role


def _expiry(text: str, now: Micros) -> Micros:
    try:
        seconds = duration_seconds(text) if text else float(DEFAULT_LIFE)
    except ValueError:
        seconds = _moment(text) - now / MICROS_PER_SECOND
    if not 0 < seconds <= LONGEST_LIFE:
        raise NotAllowed("expires: must lie in the future, within 10 years")
    return now + round(seconds * MICROS_PER_SECOND)


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        problem = "expires: must be a time such as 2030-01-31T00:00:00Z, or a duration such as 720h"
        raise NotAllowed(problem) from None


async def list_tokens(request: web.Request) -> web.StreamResponse:
    """Answer the caller's tokens, or for admins everybody's; sessions are none."""
    api, me = api_of(request), caller()
    where = {"session": False} | ({} if me.role == ADMIN else {"username": me.actor.username})
    found = await api.store.find(TokenDocument, where, order=("username", "created_at"))
    return answer([token_view(token) for token in found])


async def delete_token(request: web.Request) -> web.StreamResponse:
    """Revoke a token: the next request with it is refused."""
    api, me = api_of(request), caller()
    where = {"id": path_id(request), "session": False}
    own = {} if me.role == ADMIN else {"username": me.actor.username}
    if not await api.store.delete(TokenDocument, {**where, **own}):
        raise NotFound("token not found")
    return answer(OK)


async def login(request: web.Request) -> web.StreamResponse:
    """Begin a session: its cookie stands for the credentials until it expires or ends."""
    asked = await read_json_body(request, Login)
    _check_lengths(asked)
    identities = request.app[IDENTITIES]
    found: Caller | None = None
    if asked.key:
        found = await identities.bearer(request, asked.key)
    elif asked.username and identities.basic:
        found = await identities.sign_in(request, asked.username, asked.password)
    if found is None:
        await note_refused(request, asked.username)
        await identities.slow_down(request, asked.username)
        raise HttpError(401, "credentials are missing or wrong")
    api = api_of(request)
    now = api.store.now()
    token = await api.store.get(TokenDocument, found.token_id) if found.token_id else None
    until = now + SESSION_LIFE * MICROS_PER_SECOND
    text, stored = new_token(
        name="session",
        username=found.actor.username,
        bound_to=identities.bond(found.actor),
        role=token.role if token else ADMIN,
        now=now,
        expires_at=min(until, token.expires_at) if token else until,
        session=True,
        of_token=found.token_id,
    )
    await api.store.insert(stored)
    await record(request, "login", found.actor.username)
    response = answer(OK)
    response.set_cookie(
        SESSION_COOKIE,
        text,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=came_by_https(request),
    )
    return response


def _check_lengths(asked: Login) -> None:
    """Refuse what can be nobody's credentials at once: nothing of it is compared, logged or kept."""
    if len(asked.username) > LONGEST_USERNAME:
        raise NotAllowed(f"username: at most {LONGEST_USERNAME} characters")
    if len(asked.key) > LONGEST_KEY:
        raise NotAllowed(f"key: at most {LONGEST_KEY:,} characters")
    if len(password_bytes(asked.password)) > LONGEST:
        raise NotAllowed(f"password: at most {LONGEST:,} bytes")


async def logout(request: web.Request) -> web.StreamResponse:
    """End the session of the cookie, if there is one."""
    store = api_of(request).store
    session = await found_token(store, request.cookies.get(SESSION_COOKIE, ""))
    if session is not None and session.session:
        await store.delete(TokenDocument, {"id": session.id})
        await record(request, "logout", session.username)
    response = answer(OK)
    response.del_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="Strict")
    return response


TOKEN_ROUTES: Final = (
    Route(
        method="POST",
        path="/tokens",
        handler=create_token,
        group="users",
        summary="Create a token for a program",
        body=Body(NewToken, example={"name": "ci", "role": "user", "expires": "720h"}),
        answer=NewTokenView,
        errors={400: "A field is missing or wrong, or no authentication is on."},
        role=VIEWER,
    ),
    Route(
        method="GET",
        path="/tokens",
        handler=list_tokens,
        group="users",
        summary="List your tokens, or everybody's for an admin",
        answer=list[TokenView],
    ),
    Route(
        method="DELETE",
        path="/tokens/{id}",
        handler=delete_token,
        group="users",
        summary="Revoke a token",
        answer=StatusView,
        errors={404: "The token does not exist, or is another user's."},
        role=VIEWER,
    ),
    Route(
        method="POST",
        path="/login",
        handler=login,
        group="users",
        summary="Sign in with a session cookie, for browsers",
        body=Body(Login, example={"username": "ann", "password": "a-long-password"}),
        answer=StatusView,
        errors={
            400: "The body is no valid JSON, or a field is too long.",
            401: "The credentials are missing or wrong.",
        },
        public=True,
    ),
    Route(
        method="POST",
        path="/logout",
        handler=logout,
        group="users",
        summary="End the session of the cookie",
        answer=StatusView,
        public=True,
    ),
)
