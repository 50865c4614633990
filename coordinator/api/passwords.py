"""Hashes passwords with argon2id, in threads of low priority, because that takes time and memory by design."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from cachetools import LRUCache

from coordinator.turns import Turns
from shared.threads import in_thread_of

_AT_ONCE: Final = 2
"""Hashes computed at a time, each with 64 MiB."""
WAITING_LOGINS: Final = 8
"""Logins of one address that wait for their turn, and new passwords that one user sets."""
_REMEMBERED: Final = 1000
_NICENESS: Final = 10
LONGEST: Final = 1024
"""Bytes of a password."""

_hasher: Final = PasswordHasher(parallelism=1)


def _be_nice() -> None:
    """Let everything else of the process go before this thread."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


_threads: Final = ThreadPoolExecutor(_AT_ONCE, "passwords", initializer=_be_nice)


@cache
def _nobody() -> str:
    """Return the hash that a password is held against where there is no such user."""
    return _hasher.hash(os.urandom(16))


class Passwords:
    """Hashes and verifies passwords: users and addresses take turns. `TooManyWaiting` where one has many under way.

    Remembers those that were right for the hash they were right for: these wait for nobody.

    A changed hash is another one, so nothing need be forgotten. An unknown user takes as long as a
    wrong password.
    """

    def __init__(self) -> None:
        self._salt = os.urandom(32)
        self._right: LRUCache[bytes, bool] = LRUCache(_REMEMBERED)
        self._turns = Turns(_AT_ONCE, WAITING_LOGINS)

    async def hash(self, password: str, whose: str = "") -> str:
        """Return what is stored of a password. `whose`: whose turn it takes."""
        async with self._turns.turn(whose):
            return await in_thread_of(_threads, _hasher.hash, password)

    async def verify(self, password_hash: str | None, password: str, address: str = "") -> bool:
        """Tell whether `password` is the one of `password_hash`. `address`: whose turn it takes."""
        secret = password_bytes(password)
        if len(secret) > LONGEST:
            return False
        if password_hash is not None and self._right.get(seal := self._seal(password_hash, secret)):
            return True
        async with self._turns.turn(address):
            good = await in_thread_of(_threads, _verify, password_hash, secret)
        if not good or password_hash is None:
            return False
        self._right[seal] = True
        return True

    def _seal(self, password_hash: str, secret: bytes) -> bytes:
        text = password_hash.encode() + b"\0" + secret
        return hashlib.blake2b(text, key=self._salt, digest_size=32).digest()


def password_bytes(password: str) -> bytes:
    """Return a password as it is hashed, and as its length is counted."""
    return password.encode("utf-8", "surrogatepass")


def _verify(password_hash: str | None, secret: bytes) -> bool:
    try:
        return _hasher.verify(password_hash or _nobody(), secret)
    except (Argon2Error, InvalidHashError):
        return False
