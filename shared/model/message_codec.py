"""Messages as bytes: sealed where a key is configured and the message may hold a secret's value."""

from __future__ import annotations

import json
from typing import Protocol

import msgspec

from shared.errors import HaulierError, Unreadable
from shared.model.messages import Message, decode, encode

SEALED = "sealed"


class Seal(Protocol):
    """What seals: `shared.encryption.Vault`."""

    def seal(self, plain: bytes) -> str:
        """Return `plain`, encrypted, as text."""

    def open(self, token: str) -> bytes:
        """Return what was sealed; raises a `HaulierError` where no key of ours fits."""


class MessageCodec:
    """Encodes and decodes messages, with a vault or without."""

    def __init__(self, vault: Seal | None = None) -> None:
        self._vault = vault

    def encode(self, message: Message) -> bytes:
        """Return the body of a message."""
        body = encode(message)
        if self._vault is None or not message.sealed:
            return body
        return msgspec.json.encode({"kind": SEALED, "token": self._vault.seal(body)})

    def decode(self, body: bytes) -> Message:
        """Return the message in a body; `Unreadable` says why it is none."""
        if not body.startswith(b'{"kind":"sealed"'):
            return decode(body)
        if self._vault is None:
            raise Unreadable("the message is encrypted, and no encryption.key is configured here")
        try:
            return decode(self._vault.open(str(json.loads(body)["token"])))
        except (ValueError, KeyError, HaulierError) as error:
            raise Unreadable(f"an encrypted message that can't be opened: {error}") from error
