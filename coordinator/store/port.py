"""The port of the datastore. One contract suite runs against all adapters.

All truth is in documents of `shared.model.documents`. A change is one compare-and-set on one
document; there are no transactions over several. On return a write is durable
(majority-acknowledged and journalled, or synced to disk) unless its method says otherwise. Every
method raises `StoreUnavailable` while the datastore does not answer within its deadline; then a
write may or may not have been made, and may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from shared.errors import ApplicationError, Unstorable
from shared.model.documents import Document, Intent, JobDocument, LogPartDocument, Micros
from shared.model.queries import Above, Below, Between, Change, Has, In, Not, Where

_D = TypeVar("_D", bound=Document)

NO_LIMITS: Where = {}
"""Matches everything."""

LOG_CAP = 10_000
"""How far the parts that a log search finds are counted."""


class DocumentPage(msgspec.Struct, Generic[_D], frozen=True):
    """A page of a listing. `capped`: there are more than `total`."""

    items: list[_D]
    total: int
    capped: bool = False


class Viewer(msgspec.Struct, frozen=True):
    """On whose behalf jobs are read: only those without permissions, or with one for this user or
    these roles. `username`: what permissions that are kept with jobs call this user.
    """

    username: str
    roles: tuple[str, ...] = ()


class Store(Protocol):
    """A datastore."""

    async def start(self) -> None:
        """Connect, waiting for ever with growing delays while it is not there and saying so in the
        log; make or migrate collections and indexes (safe when many start at once).
        `StoreMisconfigured` where waiting can't help.
        """

    async def close(self) -> None:
        """Finish what was asked for and close."""

    async def ping(self) -> None:
        """Return if it can do a coordinator's work: within 2 s it changed a document of its own and read it; else
        raise `StoreUnavailable`. Callers share a question, and its answer for a second, so asking is cheap.
        """

    def now(self) -> Micros:
        """Return the store's clock: the server's, known to within tens of milliseconds and never running
        backwards; kept by the adapter from a look at the server's clock every few seconds and the
        process's monotonic clock.
        """

    def hosts(self) -> Sequence[str]:
        """Return the hosts of its servers as they are known just now, also those that the configuration does not
        name; none where it has no servers.
        """

    async def get(self, kind: type[_D], id: str) -> _D | None:
        """Return one document (the latest, also after a failover), or None."""

    async def get_many(self, kind: type[_D], ids: Sequence[str]) -> list[_D]:
        """Return those of `ids` that exist, in the order of `ids`."""

    async def insert(self, document: Document) -> bool:
        """Store a new document. False where its id is taken: then nothing is changed. A unique
        index (`coordinator.store.indexes`) that refuses it raises `SlotTaken`.
        """

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """Store those whose id is new, leaving the others as they are; return how many were new.
        One bulk write; not all-or-nothing: repeated, it makes the rest.
        """

    async def change(self, change: Change[_D]) -> _D | None:
        """Make one compare-and-set. Returns the document as it is after it, or None where nothing
        matched (or a unique index refused it).
        """

    async def change_many(self, changes: Sequence[Change[Any]]) -> int:
        """Make many compare-and-sets in bulk, each for itself; return how many matched."""

    async def change_first(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str],
        set: Mapping[str, Any],
        add_then: tuple[Intent, ...] = (),
    ) -> _D | None:
        """Compare-and-set the first document of `order` that matches `where`; return it as it is
        after, or None where none matches or a unique index refuses. Two callers never get the same
        one unless it matches again.
        """

    async def delete(self, kind: type[Document], where: Where, limit: int | None = None) -> int:
        """Delete what matches, at most `limit`; return how many."""

    async def find(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str] = (),
        limit: int | None = None,
        skip: int = 0,
        without: Sequence[str] = (),
    ) -> list[_D]:
        """Return what matches. `order`: field names, `-` before one that falls. `without`: fields
        that need not be read (they must have a default). `where` and `order` should be served by an
        index of `coordinator.store.indexes`.
        """

    async def count(self, kind: type[Document], where: Where, cap: int | None = None) -> int:
        """Return how many match, counting no further than `cap`."""

    async def group_count(self, kind: type[Document], where: Where, by: str) -> dict[str, int]:
        """Return how many match, by the value of a field."""

    async def overdue(
        self, kind: type[_D], before: Micros, limit: int, without: Sequence[str] = ()
    ) -> list[_D]:
        """Return documents that hold an intent due before `before`, the longest overdue first, as `find` does."""

    async def search_jobs(
        self,
        *,
        terms: Sequence[str],
        tags_any: Sequence[Sequence[str]],
        state: str | None,
        viewer: Viewer | None,
        skip: int,
        limit: int,
        cap: int,
        where: Where = NO_LIMITS,
        without: Sequence[str] = (),
    ) -> DocumentPage[JobDocument]:
        """Return jobs, newest first, that have all of `terms` (whole words, any case, in name,
        description, tags or state), for each list of `tags_any` at least one of its tags,
        `state`, and that match `where`. `without`: as of `find`. The total stops at `cap` where there
        is a filter and may be an estimate where there is none. Costs about the same with a million jobs
        stored as with a thousand.
        """

    async def tag_counts(self, viewer: Viewer | None, newest: int) -> dict[str, int]:
        """Return how many of the `newest` jobs that may be seen have each tag."""

    async def append_log(self, parts: Sequence[LogPartDocument]) -> None:
        """Store parts; those that are there already are left as they are. One bulk write."""

    async def log_page(
        self,
        *,
        job_id: str | None,
        task_ids: Sequence[str] | None,
        terms: Sequence[str],
        skip: int,
        limit: int,
        since: Micros | None = None,
        until: Micros | None = None,
        oldest_first: bool = False,
        counted: bool = True,
    ) -> DocumentPage[LogPartDocument]:
        """Return parts of a job or of tasks, newest first, whose contents have all of `terms` (any
        case), stored at `since` or later and at `until` or earlier; the oldest first where that is asked. The
        total is that of the items where nothing else is to be `counted`: a count takes as long as the log is.
        """

    async def vars(
        self,
        job_id: str,
        names: Sequence[str] | None,
        restarts: int,
        began: int | None = None,
        most: int | None = None,
    ) -> dict[str, str]:
        """Return `tasks.<var>`: for each var (of `names`, or all) the result of the COMPLETED task
        of the job that completed latest with it. Of restarts below `restarts`, which began at
        position `began`, only tasks before that position count (None: all do); of higher ones none.
        Raises `ResultsTooLarge` where they have more than `most` bytes, having read hardly more, and with
        `most` also for more than `MOST_VARS` names.
        """


class SlotTaken(Exception):
    """A unique index refused a document: somebody else has that slot."""


class ResultsTooLarge(ApplicationError):
    """The results that were asked for have more bytes than whoever asked can take, or are too many."""


MOST_VARS = 5_000
"""Names whose results are read together: each costs a look into the store."""


def ensure_few(names: Collection[str], most: int | None) -> None:
    """Raise `ResultsTooLarge` for too many names, where whoever asks has a limit."""
    if most is not None and len(names) > MOST_VARS:
        raise ResultsTooLarge(f"more than {MOST_VARS:,} results")


__all__ = [
    "MOST_VARS",
    "Above",
    "Below",
    "Between",
    "Change",
    "DocumentPage",
    "Has",
    "In",
    "Not",
    "ResultsTooLarge",
    "SlotTaken",
    "Store",
    "Unstorable",
    "Viewer",
    "Where",
    "ensure_few",
]
