"""The audit log: who did what and when.

What a request is about to do is stored before it is done, as an intent, so that a process that dies leaves a trace of
it. What was done is added to the chain of this process in batches; of what a dead process left, any coordinator adds
that nobody knows how it ended.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog
from aiohttp import web
from cachetools import LRUCache

from coordinator.api.addresses import client_address
from coordinator.api.context import Caller, api_of, caller
from coordinator.api.http import (
    PAGE_PARAMS,
    PageView,
    Param,
    Route,
    RouteHandler,
    answer,
    flag,
    page_of,
    paging,
    route_of,
)
from coordinator.api.middleware import Buckets, status_of
from coordinator.api.roles import ADMIN
from coordinator.audit_chain import AuditChain, audit_key
from coordinator.store.port import Store
from shared.durations import duration_seconds
from shared.errors import ApplicationError, NotAllowed
from shared.ids import new_id
from shared.model.documents import (
    MICROS_PER_SECOND,
    AuditDocument,
    AuditIntentDocument,
    Micros,
)
from shared.model.queries import Above, Below, In
from shared.model.views import AuditView, audit_view
from shared.supervision import Loop, waiting

log = structlog.get_logger(__name__)

REFUSED_LOGIN: Final = "refused_login"
SUBMITTED: Final = "submit_job"
_DELAY: Final = 0.05
"""Seconds in which what is done is gathered."""
_BATCH: Final = 500
_LEFT_AFTER: Final[Micros] = 300 * MICROS_PER_SECOND
"""No request that is audited takes longer than this: what is older was left by a process that died."""
LEFT_EVERY: Final = 30.0
_ADDRESSES: Final = 10_000
_QUIET: Final[Micros] = MICROS_PER_SECOND
_LONGEST_QUIET: Final[Micros] = 60 * MICROS_PER_SECOND
"""Refusals of one address or user within this time, at first and in the end, become one entry."""
_REFUSALS_A_SECOND: Final = 0.1
_REFUSALS_AT_ONCE: Final = 200
"""Entries about refusals that all addresses together can cause: nobody fills the log. What is beyond that waits."""
_LONGEST_TARGET: Final = 512
_DRY_RUN: Final = "dryRun"
MOST_ENTRIES: Final = 1000
CAP: Final = 10_000


class _Refusals(msgspec.Struct):
    """What one address or user was refused lately."""

    attempt: AuditIntentDocument
    status: int
    untold: int = 0
    next_at: Micros = 0
    quiet: Micros = _QUIET


class AuditLog:
    """Writes the audit log of this process."""

    def __init__(self, store: Store, passphrase: str) -> None:
        self._store = store
        self._chain = AuditChain(new_id(), audit_key(passphrase))
        self._done: list[tuple[AuditIntentDocument, int]] = []
        self._sealed: list[tuple[AuditDocument, str]] = []
        """What is being stored, each with the id of its intent."""
        self._some = asyncio.Event()
        self._writing = asyncio.Lock()
        self._refused: LRUCache[tuple[str, str], _Refusals] = LRUCache(_ADDRESSES)
        self._refusals = Buckets(_REFUSALS_A_SECOND, _REFUSALS_AT_ONCE)
        self._loops = (
            Loop("audit log", self._write_on),
            Loop("audit left over", self._take_up_left, every=LEFT_EVERY),
        )

    def start(self) -> None:
        """Start writing, in the background."""
        for loop in self._loops:
            loop.start()

    async def close(self) -> None:
        """Write what is left, so far as the datastore lets it, and stop."""
        for loop in self._loops:
            await loop.close()
        try:
            await self.flush()
        except ApplicationError as error:
            log.warning("the end of the audit log waits for another coordinator", reason=str(error))

    async def begin(self, intent: AuditIntentDocument) -> None:
        """Store what is about to be done."""
        await self._store.insert(intent)

    def end(self, intent: AuditIntentDocument, status: int) -> None:
        """Note how it was answered."""
        self._done.append((intent, status))
        self._some.set()

    async def refused(self, attempt: AuditIntentDocument, status: int) -> None:
        """Note what somebody was refused. Whoever goes on trying gets one entry a minute, with their number."""
        key = (attempt.action, attempt.username or attempt.address)
        seen = self._refused.get(key) or _Refusals(attempt, status)
        self._refused[key] = seen
        seen.attempt, seen.status, seen.untold = attempt, status, seen.untold + 1
        if attempt.at >= seen.next_at:
            await self._tell_refusals(seen)

    async def _tell_refusals(self, seen: _Refusals) -> None:
        if self._refusals.take(""):
            return
        intent = msgspec.structs.replace(seen.attempt, id=new_id(), count=seen.untold)
        now = self._store.now()
        goes_on = now < seen.next_at + _LONGEST_QUIET
        seen.quiet = min(_LONGEST_QUIET, seen.quiet * 2) if goes_on else _QUIET
        seen.next_at = now + seen.quiet
        seen.untold = 0
        await self.begin(intent)
        self.end(intent, seen.status)

    async def _tell_untold(self) -> None:
        now = self._store.now()
        for seen in list(self._refused.values()):
            if seen.untold and now >= seen.next_at:
                await self._tell_refusals(seen)

    async def flush(self) -> None:
        """Write all that is done. Raises `StoreUnavailable`, having lost nothing."""
        async with self._writing:
            while self._done or self._sealed:
                await self._write()

    async def _write(self) -> None:
        """Add a batch to the chain. One that may have been stored is stored again as it was: it is there once."""
        if not self._sealed:
            batch, self._done = self._done[:_BATCH], self._done[_BATCH:]
            now = self._store.now()
            self._sealed = [(self._chain.sealed(*each, now), each[0].id) for each in batch]
        await self._store.insert_many([entry for entry, _ in self._sealed])
        ids = tuple(id for _, id in self._sealed)
        await self._store.delete(AuditIntentDocument, {"id": In(ids)})
        self._sealed = []

    async def _write_on(self) -> None:
        while True:
            with waiting():
                await self._some.wait()
                await asyncio.sleep(_DELAY)
            self._some.clear()
            try:
                await self.flush()
            except BaseException:
                self._some.set()
                raise

    async def _take_up_left(self) -> None:
        await self._tell_untold()
        before = self._store.now() - _LEFT_AFTER
        left = await self._store.find(
            AuditIntentDocument, {"at": Below(before)}, ("at",), limit=_BATCH
        )
        for intent in left:
            # Whoever deletes it records it.
            if await self._store.delete(AuditIntentDocument, {"id": intent.id}):
                self.end(intent, 0)


_PENDING: Final = web.RequestKey("AUDIT", list)


@web.middleware
async def audited(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    """Record what changes anything, before it does and when it has."""
    route = route_of(request)
    if route is None or not route.audited or _dry(request, route):
        return await handler(request)
    api = api_of(request)
    intent = _attempt(request, route, caller())
    await api.audit.begin(intent)
    request[_PENDING] = [intent]
    try:
        response = await handler(request)
    except BaseException as error:
        _settle(request, status_of(error))
        raise
    _settle(request, response.status)
    return response


def _attempt(request: web.Request, route: Route, me: Caller) -> AuditIntentDocument:
    target = "/".join(request.match_info.values())
    intent = _intent(request, route.handler.__name__, target, me.actor.username)
    return msgspec.structs.replace(intent, how=me.how, token_id=me.token_id)


def _intent(
    request: web.Request, action: str, target: str, username: str = ""
) -> AuditIntentDocument:
    return AuditIntentDocument(
        id=new_id(),
        at=api_of(request).store.now(),
        action=action,
        target=target[:_LONGEST_TARGET],
        username=username,
        address=client_address(request),
    )


async def note_too_weak(request: web.Request, route: Route, me: Caller) -> None:
    """Record that somebody asked for what their role does not allow."""
    await api_of(request).audit.refused(_attempt(request, route, me), 403)


async def note_no_login(request: web.Request, username: str) -> None:
    """Record that a login was refused, by the name that was given."""
    await api_of(request).audit.refused(_intent(request, REFUSED_LOGIN, username), 401)


async def record(request: web.Request, action: str, username: str) -> None:
    """Record what somebody did who was not known before."""
    audit, intent = api_of(request).audit, _intent(request, action, username, username)
    await audit.begin(intent)
    audit.end(intent, 200)


def _dry(request: web.Request, route: Route) -> bool:
    known = any(param.name == _DRY_RUN for param in route.params)
    return known and flag(request, _DRY_RUN)


def done_to(request: web.Request, target: str, *, over: bool = False) -> None:
    """Say what a request was about, where its path does not. `over`: it is done, though its answer takes longer."""
    pending = request.get(_PENDING)
    if pending:
        pending[0].target = target[:_LONGEST_TARGET]
        if over:
            _settle(request, 200)


async def made_job(request: web.Request, job_id: str) -> None:
    """Record a job that a request made besides what its path names, as if it had been submitted."""
    pending = request.get(_PENDING)
    if pending:
        made = msgspec.structs.replace(pending[0], id=new_id(), action=SUBMITTED, target=job_id)
        await api_of(request).audit.begin(made)
        pending.append(made)


def _settle(request: web.Request, status: int) -> None:
    pending = request.get(_PENDING, [])
    while pending:
        api_of(request).audit.end(pending.pop(0), status)


async def list_audit(request: web.Request) -> web.StreamResponse:
    """Answer a page of the audit log, newest first."""
    api, page = api_of(request), paging(request, size=25, most=MOST_ENTRIES)
    await api.audit.flush()
    where: dict[str, object] = {}
    for name, field in (("user", "username"), ("target", "target"), ("address", "address")):
        if request.query.get(name):
            where[field] = request.query[name]
    if request.query.get("action"):
        where["action"] = In(_actions(request, request.query["action"]))
    since, until = _moment(request, "since"), _moment(request, "until")
    if since is not None:
        where["at"] = Above(since)
    if until is not None:
        where["sealed_at"] = Below(until)
    total = await api.store.count(AuditDocument, where, cap=CAP + 1)
    found = await api.store.find(
        AuditDocument, where, ("-at", "-id"), limit=page.size, skip=page.skip
    )
    shown = [audit_view(entry) for entry in found]
    return answer(
        page_of(
            shown, number=page.number, size=page.size, total=min(total, CAP), capped=total > CAP
        )
    )


def _actions(request: web.Request, asked: str) -> tuple[str, ...]:
    """Return the actions that a filter means: `submit_job` is one, `submit`, `job` and `jobs` stand for several."""
    known = {REFUSED_LOGIN, *request.app[ACTIONS]}
    words = {asked, asked.removesuffix("s")}
    return tuple(sorted({asked, *(name for name in known if words & set(name.split("_")))}))


def _moment(request: web.Request, name: str) -> Micros | None:
    text = request.query.get(name)
    if not text:
        return None
    try:
        return api_of(request).store.now() - round(duration_seconds(text) * MICROS_PER_SECOND)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
        moment = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        return round(moment * MICROS_PER_SECOND)
    except (ValueError, OverflowError):
        raise NotAllowed(
            f"{name}: must be a time such as 2030-01-31T00:00:00Z, or a duration such as 24h"
        ) from None


ACTIONS: Final = web.AppKey("ACTIONS", list)
AUDIT: Final = web.AppKey("AUDIT", AuditLog)

AUDIT_ROUTES: Final = (
    Route(
        method="GET",
        path="/audit",
        handler=list_audit,
        group="users",
        summary="List who did what and when, newest first",
        params=(
            *PAGE_PARAMS[:1],
            Param(
                "size",
                "Entries per page, 1 to 1,000; values out of range are clamped.",
                int,
                25,
                most=MOST_ENTRIES,
            ),
            Param("user", "Only what this user did."),
            Param(
                "action",
                "Only this action, an `operationId` of this document, or those with this word in it, for example "
                "`cancel` or `users`; `refused_login` for refused logins.",
            ),
            Param("target", "Only what was done to this id or name."),
            Param("address", "Only what came from this address."),
            Param("since", "Only from this time on, or this duration ago."),
            Param("until", "Only until this time, or this duration ago."),
        ),
        answer=PageView[AuditView],
        errors={400: "A parameter is not a number, a time or a duration."},
        role=ADMIN,
    ),
)
