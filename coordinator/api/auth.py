"""Authentication: a stored user by name and password, a token, a session, or the shared key."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware
from cachetools import TTLCache

from coordinator.api.addresses import client_address, client_network
from coordinator.api.audit import note_no_login, note_too_weak
from coordinator.api.context import Caller, api_of, caller, set_caller
from coordinator.api.http import HttpError, Route, RouteHandler, route_of
from coordinator.api.middleware import Buckets
from coordinator.api.passwords import Passwords
from coordinator.api.roles import OPERATOR, ROLES, covers, role_of, weaker
from coordinator.api.sharing import SharedReads
from coordinator.api.token_texts import SESSION_COOKIE, found_token, note_use
from coordinator.store.port import Store, Viewer
from coordinator.turns import TooManyWaiting
from shared.config.schema import Middleware
from shared.errors import StoreUnavailable
from shared.ids import derived_id
from shared.model.documents import GUEST, Actor, TokenDocument, UserDocument
from shared.supervision import Loop

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

LONGEST_KEY: Final = 4096
"""Characters of a key or a token, or of a whole header of credentials."""
LONGEST_USERNAME: Final = 64
FREE_REFUSALS: Final = 10
"""Refused logins of an address that are answered at once."""
_REFUSALS_A_SECOND: Final = 0.2
SLOWED: Final = 1.0
"""Seconds that each further one waits for its answer, at most."""
LOOK_AGAIN: Final = 1.0
"""Seconds between looks whether the reader of a stream may still read it."""
_SEEN: Final = 10_000


class Identities:
    """Finds out who sends a request."""

    def __init__(self, settings: Middleware) -> None:
        self.basic = settings.basic_auth.enabled
        self.key = settings.key_auth.key if settings.key_auth.enabled else ""
        self.passwords = Passwords()
        self._refusals = Buckets(_REFUSALS_A_SECOND, FREE_REFUSALS)
        self._seen = SharedReads(TTLCache(_SEEN, LOOK_AGAIN))

    @property
    def asked_for(self) -> bool:
        """Whether requests need credentials."""
        return self.basic or bool(self.key)

    async def of(self, request: web.Request) -> Caller | None:
        """Return who sends a request; None where its credentials are missing or wrong. 429 where an address has too
        many logins under way."""
        header = request.headers.get("Authorization", "")
        if len(header) > LONGEST_KEY:
            return None
        scheme, _, rest = header.partition(" ")
        if scheme.lower() == "bearer":
            return await self.bearer(request, rest.strip())
        if self.basic and scheme.lower() == "basic":
            return await self._basic(request, rest)
        session = request.cookies.get(SESSION_COOKIE, "")
        if session and not header:
            return await self._token(request, session, session=True)
        return None

    async def bearer(self, request: web.Request, text: str) -> Caller | None:
        """Return who has this key or token."""
        if self._is_key(text):
            return Caller(actor=GUEST, how="key")
        return await self._token(request, text, session=False)

    def _is_key(self, text: str) -> bool:
        given = text.encode("utf-8", "surrogateescape")
        return bool(self.key) and hmac.compare_digest(given, self.key.encode())

    async def _basic(self, request: web.Request, coded: str) -> Caller | None:
        try:
            text = base64.b64decode(coded.strip(), validate=True).decode()
        except ValueError:
            return None
        username, colon, password = text.partition(":")
        return await self.sign_in(request, username, password) if colon else None

    async def sign_in(self, request: web.Request, username: str, password: str) -> Caller | None:
        """Return who has this name and password. 429 where an address has too many logins under way."""
        if len(username) > LONGEST_USERNAME:
            return None
        user = await user_named(api_of(request).store, username)
        hashed = user.password_hash if user is not None else None
        checked = self.passwords.verify(hashed, password, client_network(request))
        good = await _in_turn(checked, "too many logins at once from this address; try again")
        return _signed_in(user) if good else None

    async def hashed(self, password: str) -> str:
        """Return what is stored of a password that the caller sets. 429 where they set too many at once."""
        hashed = self.passwords.hash(password, caller().actor.id)
        return await _in_turn(hashed, "you set too many passwords at once; try again")

    async def slow_down(self, request: web.Request, username: str) -> None:
        """Have somebody wait who was refused, if their address was often: whatever they guess, a key too."""
        wait = self._refusals.take(client_network(request))
        if wait:
            log.warning("refused logins are slowed", client=client_address(request), user=username)
            await asyncio.sleep(min(wait, SLOWED))

    async def _token(self, request: web.Request, text: str, *, session: bool) -> Caller | None:
        store = api_of(request).store
        token = await found_token(store, text)
        if token is None or token.session is not session:
            return None
        found = await self._owner(store, token)
        if found is not None:
            await note_use(store, token)
        return found

    async def _owner(self, store: Store, token: TokenDocument) -> Caller | None:
        how = "session" if token.session and not token.of_token else "token"
        if token.of_token and await store.get(TokenDocument, token.of_token) is None:
            return None
        if token.username == GUEST.username:
            return _guest(token, how) if self.key and token.bound_to == self.bond(GUEST) else None
        if not self.basic:
            return None
        user = await user_named(store, token.username)
        if user is None or user.disabled:
            return None
        found = caller_for(user, how=how, most=token.role, token_id=token.id)
        return found if token.bound_to == self.bond(found.actor) else None

    def bond(self, actor: Actor) -> str:
        """Return what a token of `actor` ends with: nobody has it any more when the user is another, or the key."""
        if actor.username == GUEST.username:
            return derived_id("key", self.key)[:8] if self.key else ""
        return str(actor.created_at)

    @asynccontextmanager
    async def watched(self, request: web.Request) -> AsyncIterator[None]:
        """Cut the connection off as soon as its caller is no longer who they were when it began."""
        began = caller()

        async def look() -> None:
            try:
                present = await self._seen_lately(request, began)
            except StoreUnavailable:
                return
            if present != began and request.transport is not None:
                request.transport.close()

        async with Loop("access of a stream", look, every=LOOK_AGAIN):
            yield

    async def _seen_lately(self, request: web.Request, began: Caller) -> Caller | None:
        """Return who sends a request now; readers with the same credentials share a look.

        No password is hashed: a flood of logins would have the look wait, or refused."""
        if began.how == "password":
            username = began.actor.username
            return await self._seen.read(
                (username, began.password), lambda: self._with_password(request, username)
            )
        shown = (
            request.headers.get("Authorization", ""),
            request.cookies.get(SESSION_COOKIE, ""),
        )
        return await self._seen.read(shown, lambda: self.of(request))

    async def _with_password(self, request: web.Request, username: str) -> Caller | None:
        return _signed_in(await user_named(api_of(request).store, username))


async def _in_turn(work: Awaitable[_T], refusal: str) -> _T:
    try:
        return await work
    except TooManyWaiting:
        raise HttpError(429, refusal, {"Retry-After": "1"}) from None


IDENTITIES: Final = web.AppKey("IDENTITIES", Identities)


async def user_named(store: Store, username: str) -> UserDocument | None:
    """Return a user by name."""
    found = await store.find(UserDocument, {"username": username}, limit=1)
    return found[0] if found else None


def _signed_in(user: UserDocument | None) -> Caller | None:
    """Return the caller that a user is who shows the present password."""
    if user is None or user.disabled:
        return None
    return caller_for(user, how="password", password=derived_id("password", user.password_hash))


def caller_for(
    user: UserDocument,
    *,
    how: str,
    most: str = ROLES[-1],
    token_id: str = "",
    password: str = "",
) -> Caller:
    """Return the caller that a user is. `most`: the strongest role that what they showed gives."""
    role = weaker(role_of(user.roles), most)
    own = {name for name in user.roles if name not in ROLES or covers(role, name)}
    return Caller(
        actor=user.actor,
        viewer=_viewer(user.reader, role, own),
        role=role,
        how=how,
        token_id=token_id,
        password=password,
    )


def _guest(token: TokenDocument, how: str) -> Caller:
    viewer = _viewer(GUEST.username, token.role, set())
    return Caller(actor=GUEST, viewer=viewer, role=token.role, how=how, token_id=token.id)


def _viewer(username: str, role: str, roles: set[str]) -> Viewer | None:
    if covers(role, OPERATOR):
        return None
    return Viewer(username, tuple(sorted(roles | {role})))


def auth(identities: Identities) -> AioMiddleware:
    """Return the middleware: 401 without good credentials, 403 where the role is too weak."""

    @web.middleware
    async def authenticated(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        route = route_of(request)
        if _open(request, route, basic=identities.basic):
            return await handler(request)
        found = await identities.of(request)
        if found is None:
            if request.headers.get("Authorization") or SESSION_COOKIE in request.cookies:
                await note_refused(request)
                await identities.slow_down(request, _claimed_name(request))
            challenge = _challenge(request, identities.basic, bool(identities.key))
            raise HttpError(401, "credentials are missing or wrong", challenge)
        set_caller(found)
        if route is not None and not covers(found.role, route.needs):
            await note_too_weak(request, route, found)
            raise HttpError(403, f"this needs the role {route.needs}; yours is {found.role}")
        if route is not None and route.endless:
            async with identities.watched(request):
                return await handler(request)
        return await handler(request)

    return authenticated


async def note_refused(request: web.Request, username: str = "") -> None:
    """Have the audit log say that somebody was refused, by the name that they gave."""
    await note_no_login(request, username or _claimed_name(request))


def _claimed_name(request: web.Request) -> str:
    scheme, _, coded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        text = base64.b64decode(coded.strip(), validate=True).decode()
        return text.partition(":")[0][:LONGEST_USERNAME]
    except ValueError:
        return ""


def _open(request: web.Request, route: Route | None, *, basic: bool) -> bool:
    """Tell whether an endpoint needs no credentials. A browser gets the pages, which hold a form to sign in."""
    if route is None:
        return False
    page = "text/html" in request.headers.get("Accept", "")
    return route.public or (route.dataless and (page or not basic))


def _challenge(request: web.Request, basic: bool, key: bool) -> dict[str, str]:
    """Return what credentials are asked for; nothing for the web page, whose browser would ask beside its form."""
    if "X-Requested-With" in request.headers:
        return {}
    schemes = []
    if basic:
        schemes.append('Basic realm="haulier", charset="UTF-8"')
    if key:
        schemes.append('Bearer realm="haulier"')
    return {"WWW-Authenticate": ", ".join(schemes)}
