"""The datastore in MongoDB."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pymongo
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from coordinator.store.checkup import Checkup
from coordinator.store.clock import until_available
from coordinator.store.codec import Codec, fields_of
from coordinator.store.key_check import checked
from coordinator.store.mongodb import queries
from coordinator.store.mongodb.connection import (
    MongoConnection,
    mongodb_start_errors,
    raise_unless_duplicates,
)
from coordinator.store.mongodb.queries import (
    ID_FIELD,
    OVERDUE_FIELD,
    Query,
    projection,
    query_of,
    update_of,
)
from coordinator.store.mongodb.schema import META, MONGODB_SCHEMA_VERSION, NEWEST_FIRST, collections
from coordinator.store.port import (
    LOG_CAP,
    NO_LIMITS,
    DocumentPage,
    ResultsTooLarge,
    SlotTaken,
    Viewer,
    ensure_few,
)
from coordinator.store.search import (
    log_order,
    log_owner,
    readers_of,
    storable,
    target_of,
    understood,
)
from shared.config.schema import ClientTls
from shared.encryption import Vault
from shared.errors import StoreMisconfigured
from shared.model.documents import (
    Document,
    Intent,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
)
from shared.model.queries import Change, Where
from shared.model.states import TaskState

_D = TypeVar("_D", bound=Document)

_AT_ONCE = 1000
"""Documents of a bulk write, so that each is done well within its deadline."""
INDEX_PATIENCE = 600.0
"""Seconds to wait for indexes to be built; the server goes on building when they are over."""


class MongoStore:
    """Keeps documents in the database `database` of the server at `url`. See
    `coordinator.store.port.Store`.
    """

    def __init__(
        self,
        url: str,
        database: str,
        vault: Vault | None = None,
        tls: ClientTls = ClientTls(),  # noqa: B008 - it is frozen
    ) -> None:
        self._connection = MongoConnection(url, database, tls)
        self._tls = tls
        self._codec = Codec(vault)
        self._vault = vault
        self._checkup = Checkup(self._reads_and_writes)

    async def start(self) -> None:
        """Connect, make indexes, look at the server's clock."""
        self._connection.open()
        try:
            await until_available(self._prepare)
        except BaseException:
            await self._connection.close()
            raise
        self._connection.watch_clock()

    async def _prepare(self) -> None:
        with mongodb_start_errors(self._tls):
            await self._connection.look_at_clock()
            await self._check_version()
            await self._check_key()
            await self._connection.warn_of_lone_server()
            with pymongo.timeout(INDEX_PATIENCE):
                for name, indexes in collections().items():
                    await self._connection[name].create_indexes(indexes)

    async def _check_version(self) -> None:
        meta = self._connection[META]
        found = await meta.find_one_and_update(
            {ID_FIELD: "schema"},
            {"$setOnInsert": {"version": MONGODB_SCHEMA_VERSION}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if found["version"] > MONGODB_SCHEMA_VERSION:
            raise StoreMisconfigured(
                f"the datastore has schema version {found['version']}, but this version of Haulier supports only "
                f"{MONGODB_SCHEMA_VERSION}: it was written by a newer version; use that version"
            )

    async def _check_key(self) -> None:
        meta = self._connection[META]
        found = await meta.find_one({ID_FIELD: "encryption"})
        there = None if found is None else found["token"]
        token = checked(self._vault, there)
        if there is not None:
            await meta.update_one(
                {ID_FIELD: "encryption", "token": there}, {"$set": {"token": token}}
            )
        elif token is not None:
            try:
                await meta.insert_one({ID_FIELD: "encryption", "token": token})
            except DuplicateKeyError:
                await self._check_key()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def ping(self) -> None:
        """Return if a document was changed and given back within 2 s."""
        await self._checkup()

    async def _reads_and_writes(self) -> None:
        beat = {"$set": {"at": self.now()}}
        call = self._connection[META].find_one_and_update({ID_FIELD: "ping"}, beat, upsert=True)
        with contextlib.suppress(DuplicateKeyError):  # another one made it in this moment
            await self._connection.ask(call)

    def now(self) -> Micros:
        """Return the server's clock."""
        return self._connection.clock.now()

    def hosts(self) -> Sequence[str]:
        """Return the hosts of the members that the driver knows."""
        return self._connection.hosts()

    async def get(self, kind: type[_D], id: str) -> _D | None:
        """Return one document, or None."""
        if not storable(id):
            return None
        call = self._of(kind).find_one({ID_FIELD: id}, projection(kind))
        found = await self._connection.ask(call)
        return None if found is None else self._document(kind, found)

    async def get_many(self, kind: type[_D], ids: Sequence[str]) -> list[_D]:
        """Return those of `ids` that exist, in the order of `ids`."""
        wanted = [id for id in ids if storable(id)]
        found: dict[str, _D] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            query = {ID_FIELD: {"$in": wanted[start : start + _AT_ONCE]}}
            found |= {each.id: each for each in await self._found(kind, query)}
        return [found[id] for id in ids if id in found]

    async def insert(self, document: Document) -> bool:
        """Store a new document."""
        kind = type(document)
        made = queries.to_mongo(self._codec, document)
        try:
            await self._connection.ask(self._of(kind).insert_one(made))
        except DuplicateKeyError:
            there = self._of(kind).find_one({ID_FIELD: document.id}, {ID_FIELD: 1})
            if await self._connection.ask(there) is not None:
                return False
            raise SlotTaken(f"{kind.noun()} {document.id}: its slot is taken") from None
        return True

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """Store those whose id is new."""
        by_kind: dict[type[Document], list[dict[str, Any]]] = {}
        for document in documents:
            made = queries.to_mongo(self._codec, document)
            by_kind.setdefault(type(document), []).append(made)
        count = 0
        for kind, made_of_kind in by_kind.items():
            for start in range(0, len(made_of_kind), _AT_ONCE):
                count += await self._insert_some(kind, made_of_kind[start : start + _AT_ONCE])
        return count

    async def _insert_some(self, kind: type[Document], made: list[dict[str, Any]]) -> int:
        try:
            await self._connection.ask(self._of(kind).insert_many(made, ordered=False))
        except BulkWriteError as error:
            raise_unless_duplicates(error)
            return int(error.details["nInserted"])
        return len(made)

    async def change(self, change: Change[_D]) -> _D | None:
        """Make one compare-and-set."""
        update, query = queries.change_of(self._codec, change), _one(change)
        if update is None:
            call = self._of(change.kind).find_one(query, projection(change.kind))
            found = await self._connection.ask(call)
            return None if found is None else self._document(change.kind, found)
        return await self._changed(change.kind, query, update, [])

    async def change_many(self, changes: Sequence[Change[Any]]) -> int:
        """Make many compare-and-sets."""
        by_kind: dict[type[Document], list[UpdateOne]] = {}
        for change in changes:
            update, query = queries.change_of(self._codec, change), _one(change)
            by_kind.setdefault(change.kind, []).append(UpdateOne(query, update or _NO_CHANGE))
        matched = 0
        for kind, updates in by_kind.items():
            for start in range(0, len(updates), _AT_ONCE):
                matched += await self._change_some(kind, updates[start : start + _AT_ONCE])
        return matched

    async def _change_some(self, kind: type[Document], updates: list[UpdateOne]) -> int:
        try:
            call = self._of(kind).bulk_write(updates, ordered=False)
            result = await self._connection.ask(call)
        except BulkWriteError as error:
            raise_unless_duplicates(error)
            return int(error.details["nMatched"])
        return int(result.matched_count)

    async def change_first(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str],
        set: Mapping[str, Any],
        add_then: tuple[Intent, ...] = (),
    ) -> _D | None:
        """Compare-and-set the first document of `order` that matches `where`."""
        update = update_of(self._codec, kind, set, add_then) or _NO_CHANGE
        return await self._changed(
            kind, query_of(kind, where), update, queries.sort_of(kind, order)
        )

    async def _changed(
        self, kind: type[_D], query: Query, update: Any, sort: list[tuple[str, int]]
    ) -> _D | None:
        call = self._of(kind).find_one_and_update(
            query,
            update,
            projection=projection(kind),
            sort=sort or None,
            return_document=ReturnDocument.AFTER,
        )
        try:
            found = await self._connection.ask(call)
        except DuplicateKeyError:
            return None
        return None if found is None else self._document(kind, found)

    async def delete(self, kind: type[Document], where: Where, limit: int | None = None) -> int:
        """Delete what matches, at most `limit`."""
        query = query_of(kind, where)
        deleted = 0
        while limit is None or deleted < limit:
            some = _AT_ONCE if limit is None else min(_AT_ONCE, limit - deleted)
            cursor = self._of(kind).find(query, {ID_FIELD: 1}).limit(some)
            ids = [each[ID_FIELD] for each in await self._connection.ask(cursor.to_list(None))]
            if not ids:
                break  # a write of nothing waits for the disk like any other
            gone = {"$and": [{ID_FIELD: {"$in": ids}}, query]}
            result = await self._connection.ask(self._of(kind).delete_many(gone))
            deleted += result.deleted_count
            if len(ids) < some:
                break
        return deleted

    async def find(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str] = (),
        limit: int | None = None,
        skip: int = 0,
        without: Sequence[str] = (),
    ) -> list[_D]:
        """Return what matches."""
        query, sort = query_of(kind, where), queries.sort_of(kind, order)
        return await self._found(kind, query, sort, limit, skip, without)

    async def count(self, kind: type[Document], where: Where, cap: int | None = None) -> int:
        """Return how many match, counting no further than `cap`."""
        return await self._count(kind, query_of(kind, where), cap)

    async def group_count(self, kind: type[Document], where: Where, by: str) -> dict[str, int]:
        """Return how many match, by the value of a field."""
        path = queries.path_of(target_of(kind, by))
        match = queries.all_of([query_of(kind, where), {path: {"$ne": None}}])
        group = {ID_FIELD: f"${path}", "count": {"$sum": 1}}
        found = await self._aggregated(kind, [{"$match": match}, {"$group": group}])
        return {str(each[ID_FIELD]): each["count"] for each in found}

    async def overdue(
        self, kind: type[_D], before: Micros, limit: int, without: Sequence[str] = ()
    ) -> list[_D]:
        """Return documents that hold an intent due before `before`."""
        due = {OVERDUE_FIELD: {"$lt": before}}
        return await self._found(kind, due, [(OVERDUE_FIELD, 1)], limit, without=without)

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
        """Return jobs, newest first."""
        search = understood(terms, tags_any, state, viewer, where)
        if search is None:
            return DocumentPage([], 0)
        query = queries.search_query(search)
        items = await self._found(JobDocument, query, NEWEST_FIRST, limit, skip, without)
        if search.unfiltered:
            call = self._of(JobDocument).estimated_document_count()
            return DocumentPage(items, await self._connection.ask(call))
        count = await self._count(JobDocument, query, cap + 1)
        return DocumentPage(items, min(count, cap), capped=count > cap)

    async def tag_counts(self, viewer: Viewer | None, newest: int) -> dict[str, int]:
        """Return how many of the newest jobs have each tag."""
        seen = {} if viewer is None else {queries.READERS: {"$in": list(readers_of(viewer))}}
        stages: list[dict[str, Any]] = [
            {"$match": seen},
            {"$sort": dict(NEWEST_FIRST)},
            {"$limit": newest},
            {"$project": {"tags": 1}},
            {"$unwind": "$tags"},
            {"$group": {"_id": "$tags", "count": {"$sum": 1}}},
        ]
        cursor = self._of(JobDocument).aggregate(stages)
        found = await self._connection.ask(cursor.to_list(None))
        return {each["_id"]: each["count"] for each in found}

    async def append_log(self, parts: Sequence[LogPartDocument]) -> None:
        """Store log parts."""
        await self.insert_many(parts)

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
        """Return log parts, newest first."""
        if not all(map(storable, terms)):
            return DocumentPage([], 0)
        owner = query_of(LogPartDocument, log_owner(job_id, task_ids, since, until))
        query = queries.all_of([owner, *queries.holds_terms("contents", terms)])
        sort = queries.sort_of(LogPartDocument, log_order(oldest_first=oldest_first))
        items = await self._found(LogPartDocument, query, sort, limit, skip)
        if not counted:
            return DocumentPage(items, len(items))
        count = await self._count(LogPartDocument, query, LOG_CAP + 1 if terms else None)
        total = min(count, LOG_CAP) if terms else count
        return DocumentPage(items, total, capped=count > total)

    async def vars(
        self,
        job_id: str,
        names: Sequence[str] | None,
        restarts: int,
        began: int | None = None,
        most: int | None = None,
    ) -> dict[str, str]:
        """Return `tasks.<var>`, reading one task for each."""
        if names is None:
            call = self._of(TaskDocument).distinct("var", {"jobId": job_id, "var": {"$ne": None}})
            there: list[str] = await self._connection.ask(call)
            names = there
        ensure_few(names, most)
        before = {} if began is None else {"position": {"$lt": began}}
        match = {
            "jobId": job_id,
            "state": TaskState.COMPLETED,
            "$or": [{"restarts": restarts}, {"restarts": {"$lt": restarts}, **before}],
        }
        latest = [("completedAt", -1), ("attempt", -1), (ID_FIELD, -1)]
        result = fields_of(TaskDocument)["result"]
        values: dict[str, str] = {}
        left = math.inf if most is None else most
        for name in names:
            call = self._of(TaskDocument).find_one(
                {**match, "var": name}, {"result": 1}, sort=latest
            )
            found = await self._connection.ask(call)
            if found is not None:
                value = found.get("result", b"")
                left -= len(name) + len(value)
                if left < 0:
                    raise ResultsTooLarge(f"more than {most:,} bytes of results")
                values[name] = self._codec.decode_value(result, value) if value else ""
        return values

    def _of(self, kind: type[Document]) -> Any:
        return self._connection[kind.collection]

    def _document(self, kind: type[_D], stored: Mapping[str, Any]) -> _D:
        return queries.from_mongo(self._codec, kind, stored)

    async def _found(
        self,
        kind: type[_D],
        query: Query,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
        skip: int = 0,
        without: Sequence[str] = (),
    ) -> list[_D]:
        if limit == 0:
            return []
        cursor = self._of(kind).find(
            query, projection(kind, tuple(without)), skip=skip, limit=limit or 0
        )
        if sort:
            cursor = cursor.sort(list(sort))
        found = await self._connection.ask(cursor.to_list(None))
        return [self._document(kind, each) for each in found]

    async def _count(self, kind: type[Document], query: Query, cap: int | None) -> int:
        if cap == 0:
            return 0
        options = {} if cap is None else {"limit": cap}
        return int(await self._connection.ask(self._of(kind).count_documents(query, **options)))

    async def _aggregated(
        self, kind: type[Document], pipeline: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        cursor = self._of(kind).aggregate(pipeline, allowDiskUse=True)
        found: list[dict[str, Any]] = await self._connection.ask(cursor.to_list(None))
        return found


_NO_CHANGE: list[dict[str, Any]] = [{"$set": {ID_FIELD: f"${ID_FIELD}"}}]
"""An update that leaves a document as it is, to learn whether it matches."""


def _one(change: Change[Any]) -> Query:
    conditions = [{ID_FIELD: change.id}, query_of(change.kind, change.where)]
    if change.overdue_before is not None:
        conditions.append({OVERDUE_FIELD: {"$lt": change.overdue_before}})
    return queries.all_of(conditions)
