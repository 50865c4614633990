"""The chains of the audit log: each entry is signed together with the signature of the one before it.

Every coordinator process writes a chain of its own, so none waits for another. Who can write to the datastore but
does not know the key can neither change an entry nor take one out of a chain without that showing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from shared.model.documents import AuditDocument, AuditIntentDocument, Micros

_PURPOSE: Final = b"haulier audit log"
_SIGNED: Final = (
    *("id", "chain", "number", "previous", "previous_at", "sealed_at", "at", "action", "target"),
    *("username", "how", "token_id", "address", "status", "count"),
)


def audit_key(passphrase: str) -> bytes:
    """Return the key that signs entries. Without a passphrase it is no secret, and a chain shows only mishaps."""
    return hmac.new(passphrase.encode(), _PURPOSE, hashlib.sha256).digest()


class AuditChain:
    """The chain of this process, and where it ends so far."""

    def __init__(self, id: str, key: bytes) -> None:
        self.id = id
        self._key = key
        self._number = 0
        self._signature = ""
        self._sealed_at: Micros = 0

    def sealed(self, intent: AuditIntentDocument, status: int, now: Micros) -> AuditDocument:
        """Return what was done as the next entry. `status`: how it was answered, 0 where nobody knows."""
        fields = {name: getattr(intent, name) for name in _SIGNED if hasattr(intent, name)}
        entry = AuditDocument(
            **{
                **fields,
                "id": f"{self.id}-{self._number + 1}",
                "status": status,
                "chain": self.id,
                "number": self._number + 1,
                "previous": self._signature,
                "previous_at": self._sealed_at,
                "sealed_at": now,
            }
        )
        entry.signature = signature_of(entry, self._key)
        self._number, self._signature, self._sealed_at = entry.number, entry.signature, now
        return entry


def signature_of(entry: AuditDocument, key: bytes) -> str:
    """Return what an entry's signature must be."""
    text = json.dumps([getattr(entry, name) for name in _SIGNED], ensure_ascii=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class ChainFault(msgspec.Struct, frozen=True, order=True):
    """Something that is wrong with a chain, at or before its entry `number`."""

    chain: str
    number: int
    problem: str


def faults(
    entries: Iterable[AuditDocument], keys: Sequence[bytes], kept_since: Micros
) -> Iterator[ChainFault]:
    """Yield what is wrong with entries, which come chain by chain in order. `kept_since`: what is older may be gone."""
    before: AuditDocument | None = None
    for entry in entries:
        if before is not None and before.chain != entry.chain:
            before = None
        yield from _entry_faults(entry, before, keys, kept_since)
        before = entry


def _entry_faults(
    entry: AuditDocument, before: AuditDocument | None, keys: Sequence[bytes], kept_since: Micros
) -> Iterator[ChainFault]:
    if not any(hmac.compare_digest(signature_of(entry, key), entry.signature) for key in keys):
        yield ChainFault(
            entry.chain, entry.number, "the entry was changed, or signed with another key"
        )
    number = before.number if before is not None else 0
    if entry.number == number + 1:
        if entry.previous != (before.signature if before is not None else ""):
            yield ChainFault(entry.chain, entry.number, "the entry before it was replaced")
    elif before is not None or entry.previous_at >= kept_since:
        missing = f"{number + 1} to {entry.number - 1}"
        yield ChainFault(entry.chain, entry.number, f"entries are missing: {missing}")
