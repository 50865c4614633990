"""Checks at the start whether the configured key is the one that the store was written with."""

from __future__ import annotations

from shared.encryption import Vault
from shared.errors import StoreMisconfigured, WrongKey

TEXT = b"haulier"


def checked(vault: Vault | None, token: str | None) -> str | None:
    """Return the token to keep in the store: `TEXT` sealed with the present key, or None where
    there is none.

    `token` is what was kept there. `StoreMisconfigured` where it can not be opened: so what was
    stored could not be read, and what would be stored others could not read.
    """
    if token is None:
        return None if vault is None else vault.seal(TEXT)
    if vault is None:
        raise StoreMisconfigured(
            "the datastore was written with an encryption key, but none is configured: set encryption.key"
        )
    try:
        return vault.reseal(token)
    except WrongKey:
        raise StoreMisconfigured(
            "the datastore was written with another encryption key: "
            "set encryption.key to that key, or add it to encryption.old_keys"
        ) from None
