"""Translates SQLite's errors to those of the port."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from coordinator.store.port import Unstorable
from shared.errors import ApplicationError, StoreCorrupt, StoreMisconfigured, StoreUnavailable

REASONS: dict[int, str] = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk has an I/O error",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it can not be opened",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_CORRUPT: "it is corrupt",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database",
    sqlite3.SQLITE_BUSY: "another program holds a lock on it",
    sqlite3.SQLITE_NOMEM: "out of memory",
}
"""By SQLite's primary result code."""
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Codes of a file that no waiting mends."""
OF_ONE_STATEMENT = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""Codes that blame a statement, not the database: the rest of its transaction can go on."""
PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    }
)
"""Codes of what may be over later."""


def sqlite_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for an error of the Python module's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def blames_statement(error: Exception) -> bool:
    """Return whether an error is of one operation, not of the database under all of them."""
    if not isinstance(error, sqlite3.Error):
        return True
    code = sqlite_code(error)
    return code in OF_ONE_STATEMENT or (
        code == 0 and not isinstance(error, sqlite3.OperationalError)
    )


def sqlite_errors(error: sqlite3.Error, path: Path) -> ApplicationError:
    """Return the error to raise while running."""
    if sqlite_code(error) in DAMAGED:
        return StoreCorrupt(_message(error, path))
    if sqlite_code(error) == sqlite3.SQLITE_TOOBIG:
        return Unstorable(f"a value is too large for SQLite: {error}")
    return StoreUnavailable(_message(error, path))


def sqlite_start_errors(error: sqlite3.Error, path: Path) -> ApplicationError:
    """Return the error to raise at the start, when whoever starts us can mend what will not pass."""
    if sqlite_code(error) in PASSING:
        return StoreUnavailable(_message(error, path))
    return StoreMisconfigured(_message(error, path))


def _message(error: sqlite3.Error, path: Path) -> str:
    reason = REASONS.get(sqlite_code(error))
    detail = f"{reason} ({error})" if reason else str(error)
    if sqlite_code(error) in DAMAGED:
        return (
            f"the datastore {path} is damaged: {detail}; restore a backup of it and delete {path.name}-wal and "
            f"{path.name}-shm, or move all three away to start empty"
        )
    return f"the datastore {path} failed: {detail}"
