"""The datastore of one process: a SQLite file."""

from coordinator.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
