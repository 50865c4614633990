"""Intents that nobody followed, because whoever was to died or failed: taken up, tried again, and given up in the end.

Taking one moves its time on and counts the try, by compare-and-set: coordinators share what is overdue instead of
doing the same (engine spec, Due work).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Final

import msgspec
import structlog
from cachetools import TTLCache

from coordinator.due.fair_order import in_turn
from coordinator.effects import FlowDriver
from coordinator.effects.evaluations import EvaluationBusy
from coordinator.effects.fan_outs import place_held
from coordinator.engine import given_up, intents
from coordinator.engine.evaluation import kept_error
from coordinator.engine.new_documents import EVALUATE, EXPAND
from coordinator.store.port import Change, In
from shared.errors import ApplicationError, BrokerUnavailable, StoreUnavailable
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    Intent,
    JobDocument,
    Micros,
    TaskDocument,
)
from shared.supervision import Tasks, beside, waiting

log = structlog.get_logger(__name__)

OVERDUE: Final[Micros] = 5 * MICROS_PER_SECOND
"""After so long an intent counts as forgotten."""

LONGEST_PUT_OFF: Final[Micros] = 300 * MICROS_PER_SECOND

GIVEN_BACK_FOR: Final[Micros] = 5 * MICROS_PER_SECOND
"""How much later a try begins again that failed of the store, the broker or this process: that costs it no try."""

INTENTS_A_LOOK: Final = 200
"""Documents of a kind that one look reads."""

AT_ONCE: Final = 32
"""Documents whose intents are followed at a time, those apart that wait for an evaluation or a turn to fan out."""

OF_ONE_JOB: Final = 24
"""Those of them that belong to one root job: it leaves room for others."""

READS_A_LOOK: Final = 5
"""So often one look reads on behind what has no room: all that it reads past is put off, by a write for each."""

ENOUGH: Final = 8
"""Documents begun by one read after which that look reads no further."""

PLACE_KEPT_FOR: Final = 1.0
"""Seconds after which what takes many steps gives its place to what waits for one, and waits for its next turn."""

ALONE_FOR: Final = 5.0
"""Seconds that one whose last process died is alone: should it take this one too, nobody else pays for it."""

TOLD_FOR: Final = 60.0
"""Seconds for which failures of a kind are logged without where they stood."""

_NOT_ITS_FAULT: Final = (StoreUnavailable, BrokerUnavailable, EvaluationBusy)


class _Owner(msgspec.Struct, frozen=True):
    """Whose a document is: the user who submitted its job, and its root job."""

    user: str
    job: str


_Owned = tuple[Document, _Owner]


class OverdueIntents:
    """Takes up what is overdue, a bounded number at a time, fairly by user, then root job."""

    def __init__(self, driver: FlowDriver) -> None:
        self._driver = driver
        self._store = driver.store
        self._under_way: dict[str, _Owner] = {}
        self._places: set[str] = set()
        """Those of them that have one of the places."""
        self._tasks = Tasks()
        self._some_wait = False
        self.more = asyncio.Event()
        """Set when there is room again, and something may wait for it."""
        self._told: TTLCache[tuple[str, type], bool] = TTLCache(100, TOLD_FOR)

    async def close(self) -> None:
        """Cut short what is under way: it is tried again."""
        await self._tasks.cancel()

    async def finish(self) -> None:
        """Wait for what is under way."""
        await self._tasks.finish()

    async def look(self) -> None:
        """Take up what is overdue now, what is below before what is above, as far as there is room; return once it has
        begun. What had no room is overdue again a little later, behind what others wait for."""
        before = self._store.now() - OVERDUE
        self._some_wait = False
        for kind in (TaskDocument, JobDocument):
            for _ in range(READS_A_LOOK):
                if not await self._look_at_some(kind, before):
                    break

    async def _look_at_some(self, kind: type[JobDocument | TaskDocument], before: Micros) -> bool:
        """Take up the first of what is overdue; tell whether there may be something behind it that has room."""
        # what can't be opened keeps nobody from their turn: it is read when its own has come
        found = await self._store.overdue(kind, before, INTENTS_A_LOOK, kind.sealed)
        new = await self._with_owners([each for each in found if each.id not in self._under_way])
        there = len(self._places)
        left = self._begin_all([each for each in new if not _died(each[0], before)], before)
        enough = len(self._places) == AT_ONCE or len(self._places) - there >= ENOUGH
        is_all = len(found) < INTENTS_A_LOOK
        full = [] if is_all else [each for each, owner in left if self._is_full(each, owner)]
        await self._put_behind(full, before)
        await self._begin_each_alone([each for each in new if _died(each[0], before)], before)
        self._some_wait |= bool(left) or not is_all
        return bool(full) and not enough

    async def _with_owners(self, documents: Sequence[Document]) -> list[_Owned]:
        """Return documents with whose they are, in the order in which they have their turn: by user, then job."""
        jobs = {each.id: each for each in documents if isinstance(each, JobDocument)}
        asked = {each.job_id for each in documents if isinstance(each, TaskDocument)}
        if asked:
            where = {"id": In(tuple(asked))}
            found = await self._store.find(JobDocument, where, without=JobDocument.sealed)
            jobs |= {job.id: job for job in found}
        owned = [(each, _owner(each, jobs)) for each in documents]
        return in_turn(in_turn(owned, lambda each: each[1]), lambda each: each[1].user)

    def _begin_all(self, documents: Sequence[_Owned], before: Micros) -> list[_Owned]:
        """Begin those that have room, and return the others."""
        left = []
        for document, owner in documents:
            if len(self._places) < AT_ONCE and not self._is_full(document, owner):
                self._begin(document, owner, before)
            else:
                left.append((document, owner))
        return left

    def _is_full(self, document: Document, owner: _Owner) -> bool:
        """Return whether its root job has all the places that one may have, or its user has as many evaluations or
        fan-outs waiting as one may."""
        if Counter(each.job for each in self._under_way.values())[owner.job] >= OF_ONE_JOB:
            return True
        has_room = {
            EVALUATE: self._driver.evaluations.has_room_for,
            EXPAND: self._driver.fan_outs.has_room_for,
        }
        return not any(has_room.get(each.do, lambda _: True)(owner.user) for each in document.then)

    async def _put_behind(
        self, documents: Sequence[Document], before: Micros, at: Micros | None = None
    ) -> None:
        """Have what is overdue `before` begin its time anew, or as `at` says."""
        at = self._store.now() if at is None else at
        changes = [
            Change(
                kind=type(document),
                id=document.id,
                put_off=tuple(msgspec.structs.replace(each, at=at) for each in overdue),
                overdue_before=before,
            )
            for document in documents
            if (overdue := _overdue(document, before))
        ]
        if changes:
            await self._store.change_many(changes)

    async def _begin_each_alone(self, documents: Sequence[_Owned], before: Micros) -> None:
        """Begin one after another, for a while: the others have their turn when what is new has had its own."""
        time = asyncio.get_running_loop().time
        until = time() + ALONE_FOR
        for document, owner in documents:
            if time() > until:
                self._some_wait = True
                return
            await self._begin_alone(document, owner, before)

    async def _begin_alone(self, document: Document, owner: _Owner, before: Micros) -> None:
        await self._finish_soon()
        if len(self._places) < AT_ONCE:
            self._begin(document, owner, before)
        await self._finish_soon()

    async def _finish_soon(self) -> None:
        with contextlib.suppress(TimeoutError), waiting():
            async with asyncio.timeout(ALONE_FOR):
                await self.finish()

    def _begin(self, document: Document, owner: _Owner, before: Micros) -> None:
        self._under_way[document.id] = owner
        self._places.add(document.id)
        place = asyncio.get_running_loop().create_future()
        place.add_done_callback(lambda _: self._give_place_back(document))
        context = copy_context()
        context.run(place_held.set, place)
        self._tasks.start(self._take_up(document, before), "overdue intents", context)

    def _give_place_back(self, document: Document) -> None:
        self._places.discard(document.id)
        if self._some_wait and len(self._places) <= AT_ONCE // 2:
            self.more.set()

    async def _take_up(self, document: Document, before: Micros) -> None:
        try:
            for what in await self._taken(document, before):
                await self._try(document, what)
        except ApplicationError as error:
            about = {"document": document.id, "reason": str(error)}
            log.info("what is overdue waits for its next turn", **about)
        finally:
            del self._under_way[document.id]
            self._give_place_back(document)

    async def _taken(self, document: Document, before: Micros) -> Sequence[Intent]:
        """Return the intents that this took, with why their last try failed: none where another coordinator took them,
        or somebody went on with them."""
        now = self._store.now()
        taken = tuple(_counted(each, now) for each in _overdue(document, before))
        rest = tuple(msgspec.structs.replace(each, error="") for each in taken)
        change = Change(kind=type(document), id=document.id, put_off=rest, overdue_before=before)
        if not await self._store.change_many([change]):
            return ()
        self._driver.counts["swept_overdue"] += 1
        return taken

    async def _try(self, document: Document, what: Intent) -> None:
        try:
            async with beside(self._hold(document, what), "hold an intent"):
                if given_up.is_given_up(what):
                    await self._give_up(document, what)
                else:
                    await self._follow(document, what)
        except _NOT_ITS_FAULT as error:
            later = self._store.now() + GIVEN_BACK_FOR
            again = msgspec.structs.replace(what, at=later, tries=what.tries - 1)
            await self._note(document, again, str(error))
        except Exception as error:
            said = str(error) if isinstance(error, ApplicationError) else type(error).__name__
            self._say_failed(document, what, error)
            await self._note(document, what, said)

    async def _hold(self, document: Document, what: Intent) -> None:
        """Keep an intent from being overdue while it is tried here, however long: others would think we died of it."""
        while True:
            await asyncio.sleep(OVERDUE / MICROS_PER_SECOND / 2)
            held = msgspec.structs.replace(what, at=max(what.at, self._store.now()), error="")
            change = Change(kind=type(document), id=document.id, put_off=(held,))
            with contextlib.suppress(StoreUnavailable):
                await self._store.change_many([change])

    def _say_failed(self, document: Document, what: Intent, error: Exception) -> None:
        """Log why a try failed; where it stood, only once in a while for each kind: many may fail of the same."""
        kind = (what.do, type(error))
        about = {"document": document.id, "intent": what.id, "tries": what.tries}
        reason = f"{type(error).__name__}: {error}"
        log.warning(
            "an intent could not be followed",
            **about,
            reason=reason,
            exc_info=None if kind in self._told else error,
        )
        self._told[kind] = True

    async def _follow(self, document: Document, what: Intent) -> None:
        whole = await self._store.get(type(document), document.id)
        if whole is None:
            return
        there = [each for each in whole.then if each.id == what.id]
        time = asyncio.get_running_loop().time
        until = time() + PLACE_KEPT_FOR
        steps = intents.follow(
            [msgspec.structs.replace(whole, then=there)], lambda: self._some_wait and time() > until
        )
        left = await self._driver.carry_out(steps)
        now = self._store.now()
        await self._put_behind(left, now + 1, now - OVERDUE - 1)

    async def _give_up(self, document: Document, what: Intent) -> None:
        job: JobDocument | None = None
        with contextlib.suppress(Exception):
            job_id = document.job_id if isinstance(document, TaskDocument) else document.id
            found = await self._driver.job(job_id)
            job = None if found is None or found.locked else found
        await self._driver.carry_out(given_up.give_up(document, what, job))

    async def _note(self, document: Document, what: Intent, error: str) -> None:
        """Keep an intent as it stands now, with why its try failed."""
        noted = msgspec.structs.replace(
            what, error=kept_error(None, error) or "no reason was given"
        )
        change = Change(kind=type(document), id=document.id, put_off=(noted,))
        await self._store.change_many([change])


def _overdue(document: Document, before: Micros) -> list[Intent]:
    return [each for each in document.then if each.at < before]


def _counted(what: Intent, now: Micros) -> Intent:
    """Return an intent that is tried once more: where this process dies of it, the next try begins at its time."""
    delay = min(OVERDUE * (2**what.tries - 1), LONGEST_PUT_OFF - OVERDUE)
    return msgspec.structs.replace(what, at=now + delay, tries=what.tries + 1)


def _died(document: Document, before: Micros) -> bool:
    """Return whether the process that tried something of this last died of it, or beside it."""
    return any(each.tries and not each.error for each in _overdue(document, before))


def _owner(document: Document, jobs: Mapping[str, JobDocument]) -> _Owner:
    assert isinstance(document, JobDocument | TaskDocument)
    job = jobs.get(document.job_id if isinstance(document, TaskDocument) else document.id)
    return _Owner(job.created_by.id if job is not None else "", document.root_id or document.id)
