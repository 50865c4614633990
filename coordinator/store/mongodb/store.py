"""The datastore in MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pymongo
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from coordinator.store.clock import until_available
from coordinator.store.codec import Codec, fields_of
from coordinator.store.field_paths import target_of
from coordinator.store.key_check import checked
from coordinator.store.mongodb import queries
from coordinator.store.mongodb.connection import Connection
from coordinator.store.mongodb.errors import raise_unless_duplicates, translated_at_start
from coordinator.store.mongodb.queries import ID, OVERDUE, Query, projection, query_of, update_of
from coordinator.store.mongodb.schema import META, NEWEST_FIRST, SCHEMA_VERSION, collections
from coordinator.store.port import LOG_CAP, Page, SlotTaken, Viewer
from coordinator.store.search import log_owner, storable, understood
from shared.encryption import Vault
from shared.errors import StoreMisconfigured, StoreUnavailable
from shared.model.documents import DOCUMENTS, Document, Intent, Job, LogPart, Micros, Task
from shared.model.queries import Below, Change, Where

D = TypeVar("D", bound=Document)

PING_DEADLINE = 2.0
"""Seconds."""
AT_ONCE = 1000
"""Documents of a bulk write, so that each is done well within its deadline."""
INDEX_PATIENCE = 600.0
"""Seconds to wait for indexes to be built; the server goes on building when they are over."""


class MongoStore:
    """Keeps documents in the database `database` of the server at `url`. See
    `coordinator.store.port.Store`.
    """

    def __init__(self, url: str, database: str, vault: Vault | None = None) -> None:
        self._connection = Connection(url, database)
        self._codec = Codec(vault)
        self._vault = vault

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
        with translated_at_start():
            await self._connection.look_at_clock()
            await self._check_version()
            await self._check_key()
            with pymongo.timeout(INDEX_PATIENCE):
                for name, indexes in collections().items():
                    await self._connection[name].create_indexes(indexes)

    async def _check_version(self) -> None:
        meta = self._connection[META]
        found = await meta.find_one_and_update(
            {ID: "schema"},
            {"$setOnInsert": {"version": SCHEMA_VERSION}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if found["version"] > SCHEMA_VERSION:
            raise StoreMisconfigured(
                f"the datastore has schema version {found['version']}, this version of Haulier knows "
                f"{SCHEMA_VERSION}: it was written by a newer one; start that"
            )

    async def _check_key(self) -> None:
        meta = self._connection[META]
        found = await meta.find_one({ID: "encryption"})
        there = None if found is None else found["token"]
        token = checked(self._vault, there)
        if there is not None:
            await meta.update_one({ID: "encryption", "token": there}, {"$set": {"token": token}})
        elif token is not None:
            try:
                await meta.insert_one({ID: "encryption", "token": token})
            except DuplicateKeyError:
                await self._check_key()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def ping(self) -> None:
        """Return if a write is acknowledged within 2 s."""
        beat = {"$set": {"at": self.now()}}
        try:
            async with asyncio.timeout(PING_DEADLINE):
                call = self._connection[META].update_one({ID: "ping"}, beat, upsert=True)
                await self._connection.ask(call)
        except DuplicateKeyError:
            return
        except TimeoutError:
            raise StoreUnavailable(f"MongoDB takes no write within {PING_DEADLINE:g} s") from None

    def now(self) -> Micros:
        """The server's clock."""
        return self._connection.clock.now()

    async def get(self, kind: type[D], id: str) -> D | None:
        """Return one document, or None."""
        if not storable(id):
            return None
        call = self._of(kind).find_one({ID: id}, projection(kind))
        found = await self._connection.ask(call)
        return None if found is None else self._document(kind, found)

    async def get_many(self, kind: type[D], ids: Sequence[str]) -> list[D]:
        """Return those of `ids` that exist, in the order of `ids`."""
        wanted = [id for id in ids if storable(id)]
        found: dict[str, D] = {}
        for start in range(0, len(wanted), AT_ONCE):
            query = {ID: {"$in": wanted[start : start + AT_ONCE]}}
            found |= {each.id: each for each in await self._found(kind, query)}
        return [found[id] for id in ids if id in found]

    async def insert(self, document: Document) -> bool:
        """Store a new document."""
        kind = type(document)
        made = queries.to_mongo(self._codec, document)
        try:
            await self._connection.ask(self._of(kind).insert_one(made))
        except DuplicateKeyError:
            there = self._of(kind).find_one({ID: document.id}, {ID: 1})
            if await self._connection.ask(there) is not None:
                return False
            raise SlotTaken(f"{kind.__name__} {document.id}: its slot is taken") from None
        return True

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """Store those whose id is new."""
        by_kind: dict[type[Document], list[dict[str, Any]]] = {}
        for document in documents:
            made = queries.to_mongo(self._codec, document)
            by_kind.setdefault(type(document), []).append(made)
        count = 0
        for kind, made_of_kind in by_kind.items():
            for start in range(0, len(made_of_kind), AT_ONCE):
                count += await self._insert_some(kind, made_of_kind[start : start + AT_ONCE])
        return count

    async def _insert_some(self, kind: type[Document], made: list[dict[str, Any]]) -> int:
        try:
            await self._connection.ask(self._of(kind).insert_many(made, ordered=False))
        except BulkWriteError as error:
            raise_unless_duplicates(error)
            return int(error.details["nInserted"])
        return len(made)

    async def change(self, change: Change[D]) -> D | None:
        """Make one compare-and-set."""
        update = update_of(self._codec, change.kind, change.set, change.add_then, change.drop_then)
        query = _one(change)
        if update is None:
            call = self._of(change.kind).find_one(query, projection(change.kind))
            found = await self._connection.ask(call)
            return None if found is None else self._document(change.kind, found)
        return await self._changed(change.kind, query, update, [])

    async def change_many(self, changes: Sequence[Change[Any]]) -> int:
        """Make many compare-and-sets."""
        by_kind: dict[type[Document], list[UpdateOne]] = {}
        for change in changes:
            update = update_of(
                self._codec, change.kind, change.set, change.add_then, change.drop_then
            )
            query = _one(change)
            by_kind.setdefault(change.kind, []).append(UpdateOne(query, update or _NO_CHANGE))
        matched = 0
        for kind, updates in by_kind.items():
            for start in range(0, len(updates), AT_ONCE):
                matched += await self._change_some(kind, updates[start : start + AT_ONCE])
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
        kind: type[D],
        where: Where,
        order: Sequence[str],
        set: Mapping[str, Any],
        add_then: tuple[Intent, ...] = (),
    ) -> D | None:
        """Compare-and-set the first document of `order` that matches `where`."""
        update = update_of(self._codec, kind, set, add_then) or _NO_CHANGE
        return await self._changed(
            kind, query_of(kind, where), update, queries.sort_of(kind, order)
        )

    async def _changed(
        self, kind: type[D], query: Query, update: Any, sort: list[tuple[str, int]]
    ) -> D | None:
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
            some = AT_ONCE if limit is None else min(AT_ONCE, limit - deleted)
            cursor = self._of(kind).find(query, {ID: 1}).limit(some)
            ids = [each[ID] for each in await self._connection.ask(cursor.to_list(None))]
            gone = {"$and": [{ID: {"$in": ids}}, query]}
            result = await self._connection.ask(self._of(kind).delete_many(gone))
            deleted += result.deleted_count
            if len(ids) < some:
                break
        return deleted

    async def find(
        self,
        kind: type[D],
        where: Where,
        order: Sequence[str] = (),
        limit: int | None = None,
        skip: int = 0,
        without: Sequence[str] = (),
    ) -> list[D]:
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
        group = {ID: f"${path}", "count": {"$sum": 1}}
        found = await self._aggregated(kind, [{"$match": match}, {"$group": group}])
        return {str(each[ID]): each["count"] for each in found}

    async def overdue(self, kind: type[D], before: Micros, limit: int) -> list[D]:
        """Return documents that hold an intent due before `before`."""
        return await self._found(kind, {OVERDUE: {"$lt": before}}, [(OVERDUE, 1)], limit)

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
    ) -> Page[Job]:
        """Return jobs, newest first."""
        search = understood(terms, tags_any, state, viewer)
        if search is None:
            return Page([], 0)
        query = queries.search_query(search)
        items = await self._found(Job, query, NEWEST_FIRST, limit, skip)
        if search.unfiltered:
            call = self._of(Job).estimated_document_count()
            return Page(items, await self._connection.ask(call))
        count = await self._count(Job, query, cap + 1)
        return Page(items, min(count, cap), capped=count > cap)

    async def append_log(self, parts: Sequence[LogPart]) -> None:
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
    ) -> Page[LogPart]:
        """Return log parts, newest first."""
        if not all(map(storable, terms)):
            return Page([], 0)
        owner = query_of(LogPart, log_owner(job_id, task_ids))
        query = queries.all_of([owner, *queries.holds("contents", terms)])
        sort = queries.sort_of(LogPart, ("-created_at", "-number"))
        items = await self._found(LogPart, query, sort, limit, skip)
        count = await self._count(LogPart, query, LOG_CAP + 1 if terms else None)
        total = min(count, LOG_CAP) if terms else count
        return Page(items, total, capped=count > total)

    async def vars(self, job_id: str, names: Sequence[str] | None, restarts: int) -> dict[str, str]:
        """Return `tasks.<var>`."""
        var = {"$ne": None} if names is None else {"$in": list(names)}
        match = {
            "jobId": job_id,
            "var": var,
            "state": "COMPLETED",
            "restarts": {"$lte": restarts},
        }
        latest = {"var": 1, "completedAt": -1, "attempt": -1, ID: -1}
        group = {ID: "$var", "result": {"$first": "$result"}}
        found = await self._aggregated(
            Task, [{"$match": match}, {"$sort": latest}, {"$group": group}]
        )
        result = fields_of(Task)["result"]
        return {
            each[ID]: ""
            if each.get("result") is None
            else self._codec.decode_value(result, each["result"])
            for each in found
        }

    async def delete_job(self, job: Job) -> None:
        """Delete a job and all that belongs to it; itself last, so that a repeat finds the rest."""
        for kind in DOCUMENTS:
            if "job_id" in fields_of(kind):
                await self.delete(kind, {"job_id": job.id})
        await self.delete(Job, {"id": job.id})

    async def purge_logs(self, before: Micros, limit: int) -> int:
        """Delete log parts made before `before`."""
        return await self.delete(LogPart, {"created_at": Below(before)}, limit)

    def _of(self, kind: type[Document]) -> Any:
        return self._connection[kind.collection]

    def _document(self, kind: type[D], stored: Mapping[str, Any]) -> D:
        return queries.from_mongo(self._codec, kind, stored)

    async def _found(
        self,
        kind: type[D],
        query: Query,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
        skip: int = 0,
        without: Sequence[str] = (),
    ) -> list[D]:
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


_NO_CHANGE: list[dict[str, Any]] = [{"$set": {ID: f"${ID}"}}]
"""An update that leaves a document as it is, to learn whether it matches."""


def _one(change: Change[Any]) -> Query:
    return queries.all_of([{ID: change.id}, query_of(change.kind, change.where)])
