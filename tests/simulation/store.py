"""A store in memory that behaves as MongoDB does: for tests that play so much that a real one would take hours.

It passes the contract suite. Documents rest as the codec encodes them, so that nobody shares an object with the store.
No thread, no socket, no chance: what is asked for is done at once, and answered a turn of the event loop later, so
that others may get in between as they do with a server.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from coordinator.store.checkup import Checkup
from coordinator.store.clock import FollowingClock, wall_clock
from coordinator.store.codec import Codec, FieldShape, fields_of, refuse_oversize, stored_key
from coordinator.store.indexes import INDEXES, Index
from coordinator.store.key_check import checked
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
    Condition,
    Search,
    Target,
    conditions_of,
    job_readers,
    job_words,
    log_order,
    log_owner,
    orders_of,
    readers_of,
    target_of,
    targets_of,
    understood,
)
from shared.encryption import Vault
from shared.errors import StoreUnavailable
from shared.model.documents import (
    DOCUMENTS,
    Document,
    Intent,
    JobDocument,
    LogPartDocument,
    Micros,
    TaskDocument,
)
from shared.model.queries import Above, Below, Between, Change, Has, In, Not, Where

_D = TypeVar("_D", bound=Document)
_T = TypeVar("_T")

Rest = Mapping[str, Any]
"""A document as it rests: Python field name → encoded value. Never changed, only replaced."""
Watcher = Callable[[type[Document], Rest | None, Rest | None], None]
"""Told of every write: the kind, and the document before and after it (None: not there)."""

_FOUND_BY = ("id", "name", "description", "tags", "permissions")
"""Fields of a job that a search looks at, beside its state."""


class MemoryData:
    """What many stores share: the documents."""

    def __init__(self) -> None:
        self.token: str | None = None
        """Tells the encryption key (`coordinator.store.key_check`)."""
        self.writable = True
        """Whether it takes writes."""
        self.watchers: list[Watcher] = []
        self._kinds: dict[str, dict[str, Rest]] = {kind.collection: {} for kind in DOCUMENTS}
        self._unique: dict[type[Document], list[_Unique]] = {
            kind: [_Unique(index) for index in INDEXES if index.kind is kind and index.unique]
            for kind in DOCUMENTS
        }

    def raw(self) -> bytes:
        """Return all bytes that rest here."""
        return msgspec.msgpack.encode(self._kinds)

    def of(self, kind: type[Document]) -> dict[str, Rest]:
        """Return all documents of a kind by their ids, the oldest first."""
        return self._kinds[kind.collection]

    def check_writable(self) -> None:
        """Raise `StoreUnavailable` where no writes are taken."""
        if not self.writable:
            raise StoreUnavailable("the store takes no writes")

    def put(self, kind: type[Document], rest: Rest) -> bool:
        """Store a document in place of what has its id. False where a unique index refuses it."""
        self.check_writable()
        if any(unique.refuses(rest) for unique in self._unique[kind]):
            return False
        there = self.of(kind)
        before, there[rest["id"]] = there.get(rest["id"]), rest
        for unique in self._unique[kind]:
            unique.replace(before, rest)
        self._tell(kind, before, rest)
        return True

    def remove(self, kind: type[Document], id: str) -> None:
        """Delete a document."""
        self.check_writable()
        gone = self.of(kind).pop(id)
        for unique in self._unique[kind]:
            unique.replace(gone, None)
        self._tell(kind, gone, None)

    def _tell(self, kind: type[Document], before: Rest | None, after: Rest | None) -> None:
        for watcher in self.watchers:
            watcher(kind, before, after)


class _Unique:
    """A unique index: which document has what only one may have."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._holders: dict[tuple[Any, ...], str] = {}

    def refuses(self, rest: Rest) -> bool:
        """Return whether another document has what this one wants."""
        slot = self._slot(rest)
        return slot is not None and self._holders.get(slot, rest["id"]) != rest["id"]

    def replace(self, before: Rest | None, after: Rest | None) -> None:
        """Take note of a write."""
        had = None if before is None else self._slot(before)
        if had is not None:
            self._holders.pop(had, None)
        has = None if after is None else self._slot(after)
        if has is not None and after is not None:
            self._holders[has] = after["id"]

    def _slot(self, rest: Rest) -> tuple[Any, ...] | None:
        """Return what only one document may have; None where the index does not hold this one."""
        slot = tuple(map(rest.get, self._index.fields))
        if None in slot or any(rest.get(name) != value for name, value in self._index.where):
            return None
        return slot


class MemoryStore:
    """One process's view of the data. See `coordinator.store.port.Store`."""

    def __init__(
        self, data: MemoryData, vault: Vault | None = None, clock: Callable[[], Micros] = wall_clock
    ) -> None:
        self._data = data
        self._vault = vault
        self._codec = Codec(vault)
        self._clock = FollowingClock(clock)
        self._open = False
        self._checkup = Checkup(self._reads_and_writes)

    async def start(self) -> None:
        self._data.token = checked(self._vault, self._data.token)
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def ping(self) -> None:
        await self._checkup()

    async def _reads_and_writes(self) -> None:
        await self._ask(self._data.check_writable)

    def now(self) -> Micros:
        return self._clock.now()

    def hosts(self) -> Sequence[str]:
        return ()

    async def _ask(self, work: Callable[[], _T]) -> _T:
        if not self._open:
            raise StoreUnavailable("the store is not open")
        answer = work()
        await asyncio.sleep(0)
        return answer

    # --- writing ----------------------------------------------------------------------------------------------------

    async def insert(self, document: Document) -> bool:
        return await self._ask(partial(self._insert, type(document), self._codec.encode(document)))

    def _insert(self, kind: type[Document], rest: Rest) -> bool:
        if rest["id"] in self._data.of(kind):
            return False
        if not self._data.put(kind, rest):
            raise SlotTaken(f"{kind.noun()} {rest['id']}: its slot is taken")
        return True

    async def insert_many(self, documents: Sequence[Document]) -> int:
        made = [(type(document), self._codec.encode(document)) for document in documents]
        return await self._ask(
            lambda: sum(
                rest["id"] not in self._data.of(kind) and self._data.put(kind, rest)
                for kind, rest in made
            )
        )

    async def append_log(self, parts: Sequence[LogPartDocument]) -> None:
        await self.insert_many(parts)

    async def change(self, change: Change[_D]) -> _D | None:
        rest = await self._ask(partial(self._changed, self._prepared(change)))
        return None if rest is None else self._codec.decode(change.kind, rest)

    async def change_many(self, changes: Sequence[Change[Any]]) -> int:
        prepared = [self._prepared(change) for change in changes]
        return await self._ask(lambda: sum(self._changed(each) is not None for each in prepared))

    async def change_first(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str],
        set: Mapping[str, Any],
        add_then: tuple[Intent, ...] = (),
    ) -> _D | None:
        def first() -> Rest | None:
            found = self._found(kind, where, order, limit=1)
            if not found:
                return None
            return self._changed(
                self._prepared(Change(kind=kind, id=found[0]["id"], set=set, add_then=add_then))
            )

        rest = await self._ask(first)
        return None if rest is None else self._codec.decode(kind, rest)

    def _prepared(self, change: Change[Any]) -> _Prepared:
        sets = [
            (
                target,
                value if target.key is not None else self._codec.encode_value(target.field, value),
            )
            for target, value in targets_of(change.kind, change.set)
        ]
        kind: type[Document] = change.kind
        then = fields_of(kind)["then"]
        added = self._codec.encode_value(then, change.add_then) or []
        put_off = self._codec.encode_value(then, change.put_off) or []
        conditions = conditions_of(change.kind, change.where)
        return _Prepared(
            change.kind,
            change.id,
            conditions,
            change.overdue_before,
            sets,
            added,
            change.drop_then,
            put_off,
        )

    def _changed(self, change: _Prepared) -> Rest | None:
        """Make a change; return what rests after it, or None where it was not made."""
        before = self._data.of(change.kind).get(change.id)
        if before is None or not change.matches(before):
            return None
        after = change.applied(before)
        if after == before:
            return before
        refuse_oversize(f"{change.kind.noun()} {change.id}", after.values())
        return after if self._data.put(change.kind, after) else None

    async def delete(self, kind: type[Document], where: Where, limit: int | None = None) -> int:
        def gone() -> int:
            found = self._found(kind, where, limit=limit)
            for rest in found:
                self._data.remove(kind, rest["id"])
            return len(found)

        return await self._ask(gone)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def get(self, kind: type[_D], id: str) -> _D | None:
        rest = await self._ask(lambda: self._data.of(kind).get(id))
        return None if rest is None else self._codec.decode(kind, rest)

    async def get_many(self, kind: type[_D], ids: Sequence[str]) -> list[_D]:
        def found() -> list[Rest]:
            there = self._data.of(kind)
            return [there[id] for id in ids if id in there]

        return self._decoded(kind, await self._ask(found))

    async def find(
        self,
        kind: type[_D],
        where: Where,
        order: Sequence[str] = (),
        limit: int | None = None,
        skip: int = 0,
        without: Sequence[str] = (),
    ) -> list[_D]:
        found = await self._ask(partial(self._found, kind, where, order, limit, skip))
        return self._decoded(kind, _less(found, without))

    async def count(self, kind: type[Document], where: Where, cap: int | None = None) -> int:
        return await self._ask(lambda: len(self._found(kind, where, limit=cap)))

    async def group_count(self, kind: type[Document], where: Where, by: str) -> dict[str, int]:
        target = target_of(kind, by)
        found = await self._ask(partial(self._found, kind, where))
        values = (_value(rest, target) for rest in found)
        return Counter(str(value) for value in values if value is not None)

    async def overdue(
        self, kind: type[_D], before: Micros, limit: int, without: Sequence[str] = ()
    ) -> list[_D]:
        def found() -> list[Rest]:
            due = [(_due(rest), rest) for rest in self._data.of(kind).values() if "then" in rest]
            late = sorted((each for each in due if each[0] < before), key=lambda each: each[0])
            return [rest for _, rest in late[:limit]]

        return self._decoded(kind, _less(await self._ask(found), without))

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
        search = understood(terms, tags_any, state, viewer, where)
        if search is None:
            return DocumentPage([], 0)
        newest = await self._ask(partial(self._found, JobDocument, where, ("-created_at", "-id")))
        found = [rest for rest in newest if self._fits(rest, search)]
        items = self._decoded(JobDocument, _less(found[skip : skip + limit], without))
        total = len(found) if search.unfiltered else min(len(found), cap)
        return DocumentPage(items, total, capped=len(found) > total)

    async def tag_counts(self, viewer: Viewer | None, newest: int) -> dict[str, int]:
        readers = None if viewer is None else readers_of(viewer)
        search = Search((), (), None, readers)
        found = await self._ask(partial(self._found, JobDocument, {}, ("-created_at", "-id")))
        seen = [rest for rest in found if self._fits(rest, search)][:newest]
        return Counter(tag for rest in seen for tag in rest.get("tags", ()))

    def _fits(self, rest: Rest, search: Search) -> bool:
        if search.state not in (None, rest["state"]):
            return False
        job = self._codec.decode(
            JobDocument, {name: rest[name] for name in _FOUND_BY if name in rest}
        )
        return (
            {*job_words(job), rest["state"].lower()}.issuperset(search.words)
            and all(not set(job.tags).isdisjoint(tags) for tags in search.tags_any)
            and (search.readers is None or not set(job_readers(job)).isdisjoint(search.readers))
        )

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
        where = log_owner(job_id, task_ids, since, until)
        order = log_order(oldest_first=oldest_first)
        newest = await self._ask(partial(self._found, LogPartDocument, where, order))
        folded = [term.casefold() for term in terms]
        found = [rest for rest in newest if _holds(rest["contents"], folded)]
        total = min(len(found), LOG_CAP) if terms else len(found)
        items = self._decoded(LogPartDocument, found[skip : skip + limit])
        if not counted:
            return DocumentPage(items, len(items))
        return DocumentPage(items, total, capped=len(found) > total)

    async def vars(
        self,
        job_id: str,
        names: Sequence[str] | None,
        restarts: int,
        began: int | None = None,
        most: int | None = None,
    ) -> dict[str, str]:
        var = Not(None) if names is None else In(tuple(names))
        where = {
            "job_id": job_id,
            "state": "COMPLETED",
            "var": var,
            "restarts": Below(restarts + 1),
        }
        order = ("completed_at", "attempt", "id")
        found = await self._ask(partial(self._found, TaskDocument, where, order))
        result = fields_of(TaskDocument)["result"]
        latest = {
            rest["var"]: rest.get("result")
            for rest in found
            if began is None or rest["restarts"] == restarts or rest["position"] < began
        }
        ensure_few(latest, most)
        size = sum(len(name) + len(value or b"") for name, value in latest.items())
        if most is not None and size > most:
            raise ResultsTooLarge(f"more than {most:,} bytes of results")
        return {
            name: "" if value is None else self._codec.decode_value(result, value)
            for name, value in latest.items()
        }

    def _found(
        self,
        kind: type[Document],
        where: Where,
        order: Sequence[str] = (),
        limit: int | None = None,
        skip: int = 0,
    ) -> list[Rest]:
        found = list(self._data.of(kind).values())
        for condition in conditions_of(kind, where):
            found = _meeting(found, condition)
        for by in reversed(orders_of(kind, order)):
            found.sort(key=partial(_sort_key, target=by.target), reverse=by.falling)
        return found[skip:] if limit is None else found[skip : skip + limit]

    def _decoded(self, kind: type[_D], found: Iterable[Rest]) -> list[_D]:
        return [self._codec.decode(kind, rest) for rest in found]


def _less(found: Iterable[Rest], without: Sequence[str]) -> Iterable[Rest]:
    """Return documents as they rest, without these fields."""
    if not without:
        return found
    return [{name: value for name, value in rest.items() if name not in without} for rest in found]


class _Prepared(msgspec.Struct, frozen=True):
    """A change with all values encoded."""

    kind: type[Document]
    id: str
    conditions: Sequence[Condition]
    overdue_before: Micros | None
    sets: Sequence[tuple[Target, Any]]
    add_then: Sequence[dict[str, Any]]
    drop_then: Sequence[str]
    put_off: Sequence[dict[str, Any]]

    def matches(self, before: Rest) -> bool:
        """Return whether the change is one of what rests."""
        late = self.overdue_before
        overdue = late is None or ("then" in before and _due(before) < late)
        return overdue and _matches(before, self.conditions)

    def applied(self, before: Rest) -> Rest:
        """Return what rests after the change."""
        after = dict(before)
        for target, value in self.sets:
            name = target.field.name
            after[name] = (
                value if target.key is None else _with_entry(after.get(name), target.key, value)
            )
        if self.add_then or self.drop_then or self.put_off:
            put_off = {each["id"]: each for each in self.put_off}
            kept = [
                put_off.get(each["id"], each)
                for each in before.get("then", [])
                if each["id"] not in self.drop_then
            ]
            once: dict[str, Any] = {}
            for intent in (*kept, *self.add_then):
                once.setdefault(intent["id"], intent)
            after["then"] = list(once.values()) or None
        return {name: value for name, value in after.items() if value is not None}


def _with_entry(entries: Rest | None, key: str, value: Any) -> Rest | None:
    """Return a map with an entry set, or (None) taken out."""
    if value is not None:
        return {**(entries or {}), key: value}
    return entries and {each: there for each, there in entries.items() if each != key}


def _value(rest: Rest, target: Target) -> Any:
    value = rest.get(target.field.name)
    return value if target.key is None or value is None else value.get(target.key)


def _matches(rest: Rest, conditions: Iterable[Condition]) -> bool:
    return all(_meets(_value(rest, each.target), each) for each in conditions)


def _meeting(found: list[Rest], condition: Condition) -> list[Rest]:
    """Return the documents that meet a condition."""
    target, matcher = condition.target, condition.matcher
    name = target.field.name
    if target.key is None and isinstance(matcher, In):
        values = matcher.values
        return [rest for rest in found if rest.get(name) in values]
    if target.key is None and isinstance(matcher, Not):
        unwanted = matcher.value
        return [rest for rest in found if rest.get(name) != unwanted]
    return [rest for rest in found if _meets(_value(rest, target), condition)]


def _meets(value: Any, condition: Condition) -> bool:
    match condition.matcher:
        case In(values):
            return value in values
        case Not(unwanted):
            return bool(value != unwanted)
        case Below(bound):
            return value is not None and value < bound
        case Above(bound):
            return value is not None and value > bound
        case Between(first, last):
            return value is not None and first <= value <= last
        case Has(values):
            is_map = condition.target.field.shape is FieldShape.MAP
            wanted = map(stored_key, values) if is_map else values
            return value is not None and any(each in value for each in wanted)


def _sort_key(rest: Rest, target: Target) -> tuple[bool, Any]:
    value = _value(rest, target)
    return value is not None, value


def _due(rest: Rest) -> Micros:
    return min(int(intent["at"]) for intent in rest["then"])


def _holds(text: str, folded: Iterable[str]) -> bool:
    """Whether a text has all of these terms, in any case."""
    contents = text.casefold()
    return all(term in contents for term in folded)
