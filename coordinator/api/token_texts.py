"""The texts that programs and browsers sign in with: made, shown once, and known again by their hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from coordinator.store.port import Store
from shared.ids import new_id
from shared.model.documents import MICROS_PER_SECOND, Micros, TokenDocument
from shared.model.queries import Change

SESSION_COOKIE: Final = "haulier_session"
_PREFIX: Final = "haulier"
"""By which scanners of leaked secrets can tell what a text is."""
_NOTED_EVERY: Final[Micros] = 60 * MICROS_PER_SECOND


def new_token(
    *,
    name: str,
    username: str,
    bound_to: str,
    role: str,
    now: Micros,
    expires_at: Micros,
    session: bool = False,
    of_token: str = "",
) -> tuple[str, TokenDocument]:
    """Return a new token's text, and what is stored of it."""
    id, secret = new_id(), secrets.token_urlsafe(32)
    stored = TokenDocument(
        id=id,
        name=name,
        username=username,
        bound_to=bound_to,
        role=role,
        hash=_hashed(secret),
        session=session,
        of_token=of_token,
        created_at=now,
        expires_at=expires_at,
    )
    return f"{_PREFIX}_{id}_{secret}", stored


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


async def found_token(store: Store, text: str) -> TokenDocument | None:
    """Return the token that `text` is, None where it is none or has expired."""
    prefix, _, rest = text.partition("_")
    id, _, secret = rest.partition("_")
    if prefix != _PREFIX or not (id.isascii() and id.isalnum() and secret):
        return None
    token = await store.get(TokenDocument, id)
    if token is None or not hmac.compare_digest(_hashed(secret), token.hash):
        return None
    return token if store.now() < token.expires_at else None


async def note_use(store: Store, token: TokenDocument) -> None:
    """Store that a token was used, at most once a minute."""
    now = store.now()
    if token.used_at is None or now - token.used_at >= _NOTED_EVERY:
        change = Change(kind=TokenDocument, id=token.id, set={"used_at": now})
        await store.change(change)
