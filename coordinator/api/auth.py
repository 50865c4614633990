"""Authentication: a stored user by name and password, or the shared key."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware

from coordinator.api.context import ANYONE, Caller, api_of, set_caller
from coordinator.api.http import HttpError
from coordinator.api.passwords import Passwords
from coordinator.api.routes import Route, RouteHandler, route_of
from coordinator.store.port import Viewer
from shared.config.tree import Middleware
from shared.model.documents import Actor, UserDocument

ADMIN: Final = "admin"
"""The role whose users may manage users."""

_LONGEST_HEADER: Final = 4096


def auth(settings: Middleware) -> AioMiddleware:
    """Return the middleware: 401 without good credentials; basic auth, the key, or either."""
    basic = settings.basic_auth.enabled
    key = settings.key_auth.key if settings.key_auth.enabled else None
    passwords = Passwords()

    async def identify(request: web.Request) -> Caller | None:
        header = request.headers.get("Authorization", "")
        scheme, _, rest = header.partition(" ")
        if len(header) > _LONGEST_HEADER:
            return None
        if key and scheme.lower() == "bearer":
            return ANYONE if hmac.compare_digest(rest.strip().encode(), key.encode()) else None
        if basic and scheme.lower() == "basic":
            return await _user(request, passwords, rest)
        return None

    @web.middleware
    async def authenticated(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        if _open(route_of(request), basic=basic):
            return await handler(request)
        found = await identify(request)
        if found is None:
            raise HttpError(401, "credentials are missing or wrong", _challenge(basic, bool(key)))
        set_caller(found)
        return await handler(request)

    return authenticated


def _open(route: Route | None, *, basic: bool) -> bool:
    return route is not None and (route.public or (route.dataless and not basic))


def _challenge(basic: bool, key: bool) -> dict[str, str]:
    schemes = []
    if basic:
        schemes.append('Basic realm="haulier", charset="UTF-8"')
    if key:
        schemes.append('Bearer realm="haulier"')
    return {"WWW-Authenticate": ", ".join(schemes)}


async def _user(request: web.Request, passwords: Passwords, token: str) -> Caller | None:
    try:
        text = base64.b64decode(token.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    username, colon, password = text.partition(":")
    if not colon:
        return None
    found = await api_of(request).store.find(UserDocument, {"username": username}, limit=1)
    user = found[0] if found else None
    good = await passwords.verify(user.password_hash if user else None, password)
    if user is None or not good or user.disabled:
        return None
    return Caller(
        actor=Actor(id=user.id, username=user.username, name=user.name, created_at=user.created_at),
        viewer=Viewer(user.username, tuple(user.roles)),
        admin=ADMIN in user.roles,
    )
