"""Encryption of stored data: a vault encrypts bytes to text and decrypts them again.

Where no key is configured there is no vault (None) and things rest as they are.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from shared.errors import WrongKey

KEY_BYTES = 32
SCRYPT_SALT = b"haulier/encryption/1"
"""The same in every process, so that a passphrase gives everyone the same key."""
SCRYPT_COST = 2**15


class Vault:
    """Encrypts with `key`; decrypts with it or with one of `old_keys`.

    A key is a Fernet key (32 bytes in URL-safe base64: `openssl rand -base64 32 | tr +/ -_`) or any
    passphrase, from which one is derived by scrypt (RFC 7914; n=2^15, r=8, p=1). To change it
    without a stop: add the new one to `old_keys` everywhere, then make it `key` and the former one
    old.
    """

    def __init__(self, key: str, old_keys: Sequence[str] = ()) -> None:
        self._fernet = MultiFernet([Fernet(_fernet_key(text)) for text in (key, *old_keys)])

    def seal(self, data: bytes) -> str:
        """Return `data` encrypted and authenticated, as ASCII text."""
        return self._fernet.encrypt(data).decode()

    def open(self, token: str) -> bytes:
        """Return what was sealed. Raises `WrongKey` where no key fits or `token` was changed."""
        try:
            return self._fernet.decrypt(token.encode())
        except (InvalidToken, UnicodeEncodeError):
            raise WrongKey(
                "the data is encrypted with a key that is neither encryption.key nor in encryption.old_keys"
            ) from None

    def reseal(self, token: str) -> str:
        """Return the same content sealed with `key`, whichever key it was sealed with. Raises
        `WrongKey`.
        """
        return self.seal(self.open(token))


def vault_of(key: str, old_keys: Sequence[str]) -> Vault | None:
    """Return the vault of these keys; None where there is no key."""
    return Vault(key, old_keys) if key else None


def _fernet_key(text: str) -> bytes:
    if not text.strip():
        raise ValueError("an encryption key must not be empty")
    if _is_fernet_key(text):
        return text.encode()
    derive = Scrypt(salt=SCRYPT_SALT, length=KEY_BYTES, n=SCRYPT_COST, r=8, p=1)
    return base64.urlsafe_b64encode(derive.derive(text.encode()))


def _is_fernet_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, altchars=b"-_", validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
