"""What really happened to jobs and tasks: every change of state, written down by triggers in the datastore itself."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from pathlib import Path

import msgspec

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
    run: int | None
    nonce: str | None
    position: int | None
    old_position: int | None
    restarts: int | None
    old_restarts: int | None


class Audit:
    """Reads the book, and checks that nothing in it breaks a promise."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(TRIGGERS)
        self._seen = 0
        self._nonces: dict[str, str] = {}
        self._runs: dict[str, int] = defaultdict(int)

    def close(self) -> None:
        self._connection.close()

    def entries(self, after: int = 0) -> list[Entry]:
        rows = self._connection.execute("SELECT * FROM audit WHERE n > ? ORDER BY n", (after,))
        return [Entry(*row) for row in rows]

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
        taken_back = entry.run == self._runs[entry.id]
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
