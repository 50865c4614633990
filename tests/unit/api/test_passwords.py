"""Passwords, with hashes as costly as users' are."""

from __future__ import annotations

import threading
from functools import cache
from typing import Literal

import pytest
from argon2 import PasswordHasher

from coordinator.api import passwords as hashing
from coordinator.api.passwords import Passwords


@pytest.fixture(autouse=True)
def cheap_hashes() -> None:
    """None here."""


@pytest.mark.slow
async def test_passwords() -> None:
    passwords = Passwords()
    stored = await passwords.hash("right")
    for _ in range(2):
        assert await passwords.verify(stored, "right")
        assert not await passwords.verify(stored, "wrong")
    assert not await passwords.verify(None, "right")
    assert not await passwords.verify("no hash", "right")
    assert not await passwords.verify(stored, "x" * 2000)


async def test_the_event_loop_hashes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()

    class Noting(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            threads.add(threading.get_ident())
            return super().hash(password, salt=salt)

    monkeypatch.setattr(hashing, "_hasher", Noting(time_cost=1, memory_cost=8, parallelism=1))
    monkeypatch.setattr(hashing, "_nobody", cache(hashing._nobody.__wrapped__))
    await Passwords().hash("right")
    assert not await Passwords().verify(None, "wrong")
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.slow
async def test_an_unknown_user_costs_as_much_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = await Passwords().hash("right")
    costs: list[str] = []

    class Noting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            costs.append(str(hash).rsplit("$", 2)[0])
            return super().verify(hash, password)

    monkeypatch.setattr(hashing, "_hasher", Noting(parallelism=1))
    monkeypatch.setattr(hashing, "_nobody", cache(hashing._nobody.__wrapped__))
    for of_user in (stored, None):
        assert not await Passwords().verify(of_user, "wrong")
    assert len(costs) == 2
    assert costs[0] == costs[1]
