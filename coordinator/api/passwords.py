"""Hashes passwords with argon2id, in threads, because that takes time and memory by design."""

from __future__ import annotations

import asyncio
import hashlib
import os
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from cachetools import LRUCache

_AT_ONCE: Final = 2
"""Hashes computed at a time, each with 64 MiB."""
_REMEMBERED: Final = 1000
LONGEST: Final = 1024
"""Bytes of a password."""

_hasher: Final = PasswordHasher()


async def hash_password(password: str) -> str:
    """Return what is stored of a password."""
    return await asyncio.to_thread(_hasher.hash, password)


@cache
def _nobody() -> str:
    """Return the hash that a password is held against where there is no such user."""
    return _hasher.hash(os.urandom(16))


class Passwords:
    """Verifies passwords, and remembers those that were right for the hash they were right for.

    A changed hash is another one, so nothing need be forgotten. An unknown user takes as long as a
    wrong password.
    """

    def __init__(self) -> None:
        self._salt = os.urandom(32)
        self._right: LRUCache[bytes, bool] = LRUCache(_REMEMBERED)
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Tell whether `password` is the one of `password_hash`."""
        secret = password.encode("utf-8", "surrogatepass")
        if len(secret) > LONGEST:
            return False
        if password_hash is not None and self._right.get(seal := self._seal(password_hash, secret)):
            return True
        async with self._turn:
            good = await asyncio.to_thread(_verify, password_hash or _nobody(), secret)
        if not good or password_hash is None:
            return False
        self._right[seal] = True
        return True

    def _seal(self, password_hash: str, secret: bytes) -> bytes:
        text = password_hash.encode() + b"\0" + secret
        return hashlib.blake2b(text, key=self._salt, digest_size=32).digest()


def _verify(password_hash: str, secret: bytes) -> bool:
    try:
        return _hasher.verify(password_hash, secret)
    except (Argon2Error, InvalidHashError):
        return False
