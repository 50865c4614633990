"""Keeps the bodies of messages that wait in a process, beyond so many bytes in a file that is gone with it."""

from __future__ import annotations

import sqlite3
from typing import Final

import structlog

from shared.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

KEPT_IN_MEMORY: Final = 64 * 1024 * 1024
"""Bytes of bodies that are kept in memory; further ones go to the file."""


class Spill:
    """Where bodies are kept: for as long as somebody holds what `keep` returned."""

    def __init__(self, in_memory: int = KEPT_IN_MEMORY) -> None:
        self._left = in_memory
        self._file: sqlite3.Connection | None = None

    def keep(self, body: bytes) -> KeptBody:
        """Keep a body; `BrokerUnavailable` where the disk has no room for it."""
        if len(body) <= self._left:
            self._left -= len(body)
            return KeptBody(self, body, None)
        try:
            added = self._opened().execute("INSERT INTO bodies (body) VALUES (?)", (body,))
        except sqlite3.Error as error:
            raise BrokerUnavailable(f"a message that waits can't be kept: {error}") from error
        return KeptBody(self, None, added.lastrowid)

    def read(self, row: int | None) -> bytes:
        """Return a body from the file; an empty one where the disk does not give it: who gets that buries it, and the
        task is sent again."""
        try:
            found = self._opened().execute("SELECT body FROM bodies WHERE row = ?", (row,))
            body: bytes = found.fetchone()[0]
        except sqlite3.Error as error:
            log.warning("a message that waited can't be read", reason=str(error))
            return b""
        return body

    def over(self, body: bytes | None, row: int | None) -> None:
        """Give back what a body took."""
        if body is not None:
            self._left += len(body)
        elif self._file is not None:
            self._file.execute("DELETE FROM bodies WHERE row = ?", (row,))

    def close(self) -> None:
        """Close the file, which has no name and so is gone."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode = OFF")
            self._file.execute("CREATE TABLE bodies (row INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        return self._file


class KeptBody:
    """A body that is kept."""

    __slots__ = ("_body", "_row", "_spill")

    def __init__(self, spill: Spill, body: bytes | None, row: int | None) -> None:
        self._spill = spill
        self._body = body
        self._row = row

    def read(self) -> bytes:
        """Return it."""
        return self._spill.read(self._row) if self._body is None else self._body

    def __del__(self) -> None:
        self._spill.over(self._body, self._row)
