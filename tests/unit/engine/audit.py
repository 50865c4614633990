"""What really happened to jobs and tasks: every change of state, written down by the datastore itself."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from pathlib import Path
from typing import Protocol

import msgspec

from shared.model.documents import Document, JobDocument, TaskDocument
from tests.simulation.store import MemoryData, Rest

# The states and what each may become, as the engine spec's table says it (not as the engine does).
MAY_BECOME = {
    "CREATED": {"PENDING", "SKIPPED", "FAILED", "CANCELLED", "RUNNING"},
    "PENDING": {"SCHEDULED", "RUNNING", "CANCELLED", "COMPLETED", "FAILED"},
    "SCHEDULED": {"PENDING", "RUNNING", "CANCELLED", "COMPLETED", "FAILED"},
    "RUNNING": {"COMPLETED", "FAILED", "CANCELLED", "PENDING"},
}
JOB_MAY_BECOME = {
    "PENDING": {"SCHEDULED", "CANCELLED", "FAILED"},
    "SCHEDULED": {"RUNNING", "COMPLETED", "CANCELLED", "FAILED"},
    "RUNNING": {"COMPLETED", "CANCELLED", "FAILED"},
    "FAILED": {"RUNNING"},
    "CANCELLED": {"RUNNING"},
}
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"}

TRIGGERS = """
CREATE TABLE audit (n INTEGER PRIMARY KEY, kind TEXT, id TEXT, old TEXT, new TEXT, run INTEGER, nonce TEXT,
                    position INTEGER, old_position INTEGER, restarts INTEGER, old_restarts INTEGER);
CREATE TRIGGER audit_tasks AFTER UPDATE ON tasks WHEN OLD.state <> NEW.state BEGIN
  INSERT INTO audit (kind, id, old, new, run, nonce) VALUES ('task', NEW.id, OLD.state, NEW.state, NEW.run, NEW.nonce);
END;
CREATE TRIGGER audit_jobs AFTER UPDATE ON jobs
WHEN OLD.state <> NEW.state OR OLD.position <> NEW.position OR OLD.restarts <> NEW.restarts BEGIN
  INSERT INTO audit (kind, id, old, new, position, old_position, restarts, old_restarts)
  VALUES ('job', NEW.id, OLD.state, NEW.state, NEW.position, OLD.position, NEW.restarts, OLD.restarts);
END;
"""


class Entry(msgspec.Struct, frozen=True):
    """One change."""

    n: int
    kind: str
    id: str
    old: str
    new: str
    run: int | None = None
    nonce: str | None = None
    position: int | None = None
    old_position: int | None = None
    restarts: int | None = None
    old_restarts: int | None = None


class Book(Protocol):
    """Where the changes are written down."""

    def entries(self, after: int = 0) -> list[Entry]:
        """Return what came after the entry of a number."""

    def close(self) -> None:
        """Write nothing more."""


class SqliteBook:
    """Kept by triggers in the file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(TRIGGERS)

    def close(self) -> None:
        self._connection.close()

    def entries(self, after: int = 0) -> list[Entry]:
        rows = self._connection.execute("SELECT * FROM audit WHERE n > ? ORDER BY n", (after,))
        return [Entry(*row) for row in rows]


_TOLD_OF_JOBS = ("state", "position", "restarts")


class MemoryBook:
    """Kept by a watcher of the documents in memory."""

    def __init__(self, data: MemoryData) -> None:
        self._data = data
        self._entries: list[Entry] = []
        data.watchers.append(self._write)

    def close(self) -> None:
        self._data.watchers.remove(self._write)

    def entries(self, after: int = 0) -> list[Entry]:
        return self._entries[after:]

    def _write(self, kind: type[Document], before: Rest | None, after: Rest | None) -> None:
        if before is None or after is None or kind not in (TaskDocument, JobDocument):
            return
        n = len(self._entries) + 1
        states = before["state"], after["state"]
        if kind is TaskDocument and states[0] != states[1]:
            entry = Entry(n, "task", after["id"], *states, after["run"], after.get("nonce"))
            self._entries.append(entry)
        if kind is JobDocument and any(before[name] != after[name] for name in _TOLD_OF_JOBS):
            moved = (after["position"], before["position"], after["restarts"], before["restarts"])
            self._entries.append(Entry(n, "job", after["id"], *states, None, None, *moved))


class Audit:
    """Reads the book, and checks that nothing in it breaks a promise."""

    def __init__(self, book: Book) -> None:
        self.entries = book.entries
        self._seen = 0
        self._nonces: dict[str, str] = {}
        self._runs: dict[str, int] = defaultdict(int)

    def ends(self) -> Counter[str]:
        """How often each task ended."""
        return Counter(e.id for e in self.entries() if e.kind == "task" and e.new in ENDED)

    def states(self, id: str) -> list[str]:
        """The states that a job or task went through after its first."""
        return [entry.new for entry in self.entries() if entry.id == id and entry.old != entry.new]

    def check(self) -> None:
        """Check what came since the last check."""
        for entry in self.entries(self._seen):
            self._seen = entry.n
            if entry.kind == "task":
                self._check_task(entry)
            else:
                self._check_job(entry)

    def _check_task(self, entry: Entry) -> None:
        assert entry.new in MAY_BECOME.get(entry.old, set()), entry
        if entry.new != "RUNNING" or not entry.nonce:
            return
        assert entry.run is not None
        taken_back = entry.nonce in self._nonces
        first = self._nonces.setdefault(entry.nonce, f"{entry.id} {entry.run}")
        assert first == f"{entry.id} {entry.run}", f"a nonce was granted twice: {entry}"
        assert taken_back or entry.run == self._runs[entry.id] + 1, entry
        self._runs[entry.id] = entry.run

    def _check_job(self, entry: Entry) -> None:
        if entry.old != entry.new:
            assert entry.new in JOB_MAY_BECOME.get(entry.old, set()), entry
        assert entry.position is not None
        assert entry.old_position is not None
        assert entry.position - entry.old_position in (0, 1), f"a position jumped: {entry}"
        assert entry.restarts == (entry.old_restarts or 0) + (
            entry.old in ("FAILED", "CANCELLED") and entry.new == "RUNNING"
        ), entry
