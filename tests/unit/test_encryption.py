from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from shared import encryption
from shared.encryption import Vault
from shared.errors import WrongKey

KEY = Fernet.generate_key().decode()
VAULT = Vault(Fernet.generate_key().decode())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guess of a passphrase costs by design is not what these tests are about."""
    monkeypatch.setattr(encryption, "SCRYPT_COST", 2)


@given(st.binary())
def test_what_is_sealed_is_opened(data: bytes) -> None:
    assert VAULT.open(VAULT.seal(data)) == data


def test_any_key_will_do() -> None:
    for key in (KEY, "short", "é 🚚", "x" * 1000, "A" * 44, KEY[:-1]):
        token = Vault(key).seal(b"data")
        assert b"data" not in token.encode()
        assert Vault(key).open(token) == b"data"


def test_a_fernet_key_is_taken_as_it_is() -> None:
    assert Fernet(KEY).decrypt(Vault(KEY).seal(b"data").encode()) == b"data"


def test_the_same_is_never_sealed_alike() -> None:
    assert VAULT.seal(b"data") != VAULT.seal(b"data")


@pytest.mark.parametrize("key", ["", " ", "\n"])
def test_no_key_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        Vault(key)
    with pytest.raises(ValueError, match="empty"):
        Vault(KEY, [key])


def test_another_key_or_a_changed_token_opens_nothing() -> None:
    token = VAULT.seal(b"data")
    with pytest.raises(WrongKey):
        Vault(KEY).open(token)
    for spoilt in (token[:-10], "A" + token, "", "no token", "é"):
        with pytest.raises(WrongKey):
            VAULT.open(spoilt)


def test_old_keys_open_and_only_the_new_one_seals() -> None:
    both = Vault(KEY, ["first", "second"])
    old = Vault("second").seal(b"data")
    assert both.open(old) == b"data"
    with pytest.raises(WrongKey):
        Vault("second").open(both.seal(b"data"))
    assert Vault(KEY).open(both.reseal(old)) == b"data"
