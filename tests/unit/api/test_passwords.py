"""Passwords, with hashes as costly as users' are."""

from __future__ import annotations

from coordinator.api.passwords import Passwords, hash_password


async def test_passwords() -> None:
    passwords, stored = Passwords(), await hash_password("right")
    for _ in range(2):
        assert await passwords.verify(stored, "right")
        assert not await passwords.verify(stored, "wrong")
    assert not await passwords.verify(None, "right")
    assert not await passwords.verify("no hash", "right")
    assert not await passwords.verify(stored, "x" * 2000)
