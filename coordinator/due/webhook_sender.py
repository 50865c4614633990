"""Sends webhook deliveries: stored before they are sent, retried with growing delays, shared among coordinators."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import hmac
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog
from yarl import URL

from coordinator.due.webhook_addresses import ADDRESS_REFUSED, WebhookAddresses
from coordinator.due.webhook_limits import DELIVERIES_AT_ONCE, Place, Places
from coordinator.due.webhook_names import LOOKUP_PATIENCE, NoLookup, ReceiverNames, named_by
from coordinator.due.webhooks_due import WebhooksDue, pending
from coordinator.store.port import Below, Change, Store
from shared.errors import ApplicationError
from shared.model.checks import header_problem
from shared.model.documents import MICROS_PER_SECOND, DeliveryDocument, Micros
from shared.model.states import DeliveryState
from shared.supervision import Loop, Tasks, waiting

log = structlog.get_logger(__name__)

_EVERY = 0.25
"""Seconds between looks at what is due."""

PAUSE = 0.05
"""Seconds between looks while more is due than may be under way."""

_FIRST_DELAY = 5.0
"""Seconds before the second try; each further one waits three times as long."""

GROWTH = 3.0
_IN_LINE = ("line", "sequence", "created_at", "id")
_NEWEST_FIRST = ("-line", "-sequence", "-created_at", "-id")
_IN_HAND = 4
"""The newest of a line that a receiver which answers gets all of."""

_LOOK_AGAIN: Micros = MICROS_PER_SECOND
"""How long after it had to wait for another that is about to begin one is looked at again."""

_CALLS = 3
"""How often the next of a line is called where it is put off in the same moment."""

_GIVEN_BACK_FOR = (5.0, 15.0)
"""How many seconds later, at least and at most, a try begins again that failed of this process."""

_LACKED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, socket.EAI_MEMORY})
"""Errors of a process or machine that has no descriptors, memory or buffers left."""

AGAIN = frozenset({408, 429})
"""Answers, besides 5xx, after which it is tried again."""


class _Outcome(msgspec.Struct, frozen=True):
    """What came of a try: whether it was the last, the error, if there was one, and what the receiver answered."""

    over: bool
    error: str | None = None
    status: int | None = None
    given_back: bool = False
    """Whether this process was at fault, so that it does not count."""


class WebhookSender:
    """Delivers what is due. A delivery is claimed by moving its due time on, so that no two coordinators try it at
    once, and one that dies on the way has it tried again."""

    def __init__(
        self, store: Store, attempts: int, timeout: float, addresses: WebhookAddresses
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._timeout = timeout
        self._addresses = addresses
        self._session: aiohttp.ClientSession | None = None
        self._places = Places()
        self._due = WebhooksDue(store)
        self._trying = Tasks()
        self._done = asyncio.Event()
        self._loop = Loop("webhooks", self._deliver_due, every=_EVERY)

    def start(self) -> None:
        """Start delivering what is due, in the background."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(
                limit=DELIVERIES_AT_ONCE,
                resolver=ReceiverNames(min(LOOKUP_PATIENCE, self._timeout / 2)),
                use_dns_cache=False,  # it would have users share one lookup, and its failure
                socket_factory=self._addresses.make_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._loop.start()

    async def close(self) -> None:
        """Stop; what is under way is tried again by whichever coordinator is there."""
        await self._loop.close()
        await self._trying.cancel()
        if self._session is not None:
            await self._session.close()

    async def _deliver_due(self) -> None:
        while await self._begin_due():
            self._done.clear()
            with contextlib.suppress(TimeoutError), waiting():
                async with asyncio.timeout(_EVERY):
                    await self._done.wait()
            await asyncio.sleep(PAUSE)

    async def _begin_due(self) -> bool:
        """Begin what is due and has room, and tell whether there may be more.

        What has none is due again when it may have: whatever waits for a slow receiver, others are looked at."""
        now = self._store.now()
        due, is_all = await self._due.look(now)
        places = {each.id: _place(each) for each in due}
        new = [each for each in due if each.id not in self._places]
        left = self._places.in_turn(new, lambda each: places[each.id])
        heads: dict[str, DeliveryDocument | None] = {}
        behind: list[Change[DeliveryDocument]] = []
        while taken := self._take_room(left, places):
            heads |= await self._heads_of(taken, heads)
            later = [each for each in left if not _may_be_first(each, heads)]
            behind += [
                _due_at(each, self._turn_behind(heads[each.line or ""], now)) for each in later
            ]
            self._begin(taken, later)
            over = {each.id for each in (*taken, *later)}
            left = [each for each in left if each.id not in over]
        if not self._places.full:
            behind += self._put_behind(left, places, now)
        if behind:
            await self._store.change_many(behind)
        return bool(left) or not is_all

    def _take_room(
        self, waiting: Sequence[DeliveryDocument], places: Mapping[str, Place]
    ) -> list[DeliveryDocument]:
        """Take a place for each that has room, and return those."""
        taken = []
        for delivery in waiting:
            if self._places.has_room_for(places[delivery.id]):
                self._places.take(delivery.id, places[delivery.id])
                taken.append(delivery)
        return taken

    async def _heads_of(
        self, taken: Sequence[DeliveryDocument], known: Collection[str]
    ) -> dict[str, DeliveryDocument | None]:
        """Return the first open delivery of each line that is not known.

        Where that fails, the places that were taken are free again."""
        lines = list(dict.fromkeys(each.line for each in taken if each.line))
        unknown = [line for line in lines if line not in known]
        try:
            found = await asyncio.gather(*map(self._head, unknown))
        except BaseException:
            for delivery in taken:
                self._places.give_back(delivery.id)
            raise
        return dict(zip(unknown, found, strict=True))

    async def _head(self, line: str) -> DeliveryDocument | None:
        """Return the first of a line that is open. Untried progress gives way to what is newer where its receiver does
        not keep up."""
        head = await self._first(line, _IN_LINE)
        if head is None or not (head.error or _untried(head)):
            return head
        newest = 1 if head.error else _IN_HAND
        kept = await self._first(line, _NEWEST_FIRST, skip=newest - 1)
        if kept is None or kept.sequence <= head.sequence:
            return head
        needless = {
            "line": line,
            "state": DeliveryState.PENDING,
            "progress": True,
            "attempts": 0,
            "sequence": Below(kept.sequence),
        }
        await self._store.delete(DeliveryDocument, needless)
        return await self._first(line, _IN_LINE)

    async def _first(
        self, line: str, order: Sequence[str], skip: int = 0
    ) -> DeliveryDocument | None:
        found = await pending(self._store, {"line": line}, order, 1, skip)
        return found[0] if found else None

    def _turn_behind(self, head: DeliveryDocument | None, now: Micros) -> Micros:
        """Return when one that waits for the first of its line is looked at again: whoever ends that one has it due at
        once."""
        if head is None or head.due_at <= now:
            return now + _LOOK_AGAIN
        return head.due_at + 1

    async def _call_next(self, delivery: DeliveryDocument) -> None:
        """Have the next of a line due, now that this one is over."""
        if delivery.line is None:
            return
        for _ in range(_CALLS):
            following = await self._first(delivery.line, _IN_LINE)
            if following is None or following.attempts:
                return
            if await self._store.change(_due_at(following, self._store.now())) is not None:
                return

    async def _tries(self, delivery: DeliveryDocument) -> int:
        """Return how often a delivery is tried: once behind one that was given up."""
        if delivery.line is None:
            return self._attempts
        where = {"line": delivery.line, "sequence": Below(delivery.sequence)}
        before = await self._store.find(DeliveryDocument, where, ("-sequence",), limit=1)
        given_up = any(each.state == DeliveryState.FAILED for each in before)
        return 1 if given_up else self._attempts

    def _begin(
        self, taken: Sequence[DeliveryDocument], later: Collection[DeliveryDocument]
    ) -> None:
        """Begin those that have a place, but for those whose turn comes later: their places are free again."""
        waits = {each.id for each in later}
        for delivery in taken:
            if delivery.id in waits:
                self._places.give_back(delivery.id)
            else:
                self._trying.start(self._claim_and_try(delivery), f"webhook {delivery.id}")

    def _put_behind(
        self, deliveries: Sequence[DeliveryDocument], places: Mapping[str, Place], now: Micros
    ) -> list[Change[DeliveryDocument]]:
        before: Counter[str] = Counter()
        changes = []
        for delivery in deliveries:
            host = places[delivery.id].host
            later = self._places.wait(host, before[host])
            before[host] += 1
            changes.append(_due_at(delivery, now + int(later * MICROS_PER_SECOND)))
        return changes

    async def _claim_and_try(self, delivery: DeliveryDocument) -> None:
        try:
            await self._claim_try_settle(delivery, self._store.now())
        except ApplicationError as error:
            log.info("a webhook waits for its next turn", id=delivery.id, reason=str(error))
        except Exception:
            log.exception("a webhook's delivery failed", id=delivery.id)
        finally:
            self._places.give_back(delivery.id)
            self._done.set()

    async def _claim_try_settle(self, delivery: DeliveryDocument, now: Micros) -> None:
        claimed = await self._store.change(
            Change(
                kind=DeliveryDocument,
                id=delivery.id,
                where={
                    "state": DeliveryState.PENDING,
                    "due_at": delivery.due_at,
                    "attempts": delivery.attempts,
                },
                set={
                    "attempts": delivery.attempts + 1,
                    "due_at": now
                    + int((self._timeout + self._delay(delivery.attempts + 1)) * MICROS_PER_SECOND),
                },
            )
        )
        if claimed is not None:
            await self._settle(claimed, await self._try(claimed))

    def _delay(self, attempts: int) -> float:
        return _FIRST_DELAY * GROWTH ** max(0, attempts - 1) * random.uniform(0.9, 1.1)

    async def _try(self, delivery: DeliveryDocument) -> _Outcome:
        assert self._session is not None
        if delivery.locked:
            return _Outcome(over=False, error=delivery.locked)
        body = delivery.body.encode()
        timestamp = str(self._store.now() // MICROS_PER_SECOND)
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            **{n: v for n, v in delivery.headers.items() if header_problem(n) is None},
            **signed(delivery.id, timestamp, body, delivery.secret),
        }
        began = time.monotonic()
        named_by.set(delivery.user)
        try:
            await self._addresses.look()
            self._addresses.check_name(URL(delivery.url).raw_host or "")
            async with self._session.post(
                delivery.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except Exception as error:
            if is_lacking(error):
                return _Outcome(over=False, error=reason_of(error), given_back=True)
            self._learn(delivery, began, timed_out=isinstance(error, TimeoutError))
            if not isinstance(error, (aiohttp.ClientError, TimeoutError, OSError, ValueError)):
                raise
            refused = ADDRESS_REFUSED in str(getattr(error, "os_error", error))
            return _Outcome(refused, ADDRESS_REFUSED if refused else reason_of(error))
        self._learn(delivery, began, timed_out=False)
        if status < 300:
            return _Outcome(over=True, status=status)
        over = status < 500 and status not in AGAIN
        return _Outcome(over, f"the receiver answered {status}", status)

    def _learn(self, delivery: DeliveryDocument, began: float, *, timed_out: bool) -> None:
        self._places.tried(_place(delivery).host, time.monotonic() - began, timed_out=timed_out)

    async def _settle(self, delivery: DeliveryDocument, outcome: _Outcome) -> None:
        if outcome.given_back:
            await self._give_back(delivery, outcome.error)
            return
        now, status = self._store.now(), outcome.status
        fields: dict[str, object] = {
            "error": outcome.error,
            "status": status,
            "answered_at": None if status is None else now,
        }
        if outcome.error is None:
            fields["state"] = DeliveryState.DELIVERED
        elif outcome.over or delivery.attempts >= await self._tries(delivery):
            fields["state"] = DeliveryState.FAILED
            log.warning(
                "a webhook was not delivered",
                job=delivery.job_id,
                attempts=delivery.attempts,
                reason=outcome.error,
            )
        else:
            fields["due_at"] = now + int(self._delay(delivery.attempts) * MICROS_PER_SECOND)
        if "state" in fields:  # nobody needs it any more, and it may hold a result, unencrypted
            fields["body"] = ""
        await self._store.change(_after_try(delivery, fields))
        if "state" in fields:
            await self._call_next(delivery)

    async def _give_back(self, delivery: DeliveryDocument, reason: str | None) -> None:
        """Have a delivery as it was before a try, and due again a little later."""
        log.info("a webhook waits for its next turn", id=delivery.id, reason=reason)
        later = int(random.uniform(*_GIVEN_BACK_FOR) * MICROS_PER_SECOND)
        fields = {"attempts": delivery.attempts - 1, "due_at": self._store.now() + later}
        await self._store.change(_after_try(delivery, fields))


def _untried(delivery: DeliveryDocument) -> bool:
    return delivery.progress and not delivery.attempts


def _may_be_first(delivery: DeliveryDocument, heads: Mapping[str, DeliveryDocument | None]) -> bool:
    """Return whether a delivery is the first of its line, or that is not known."""
    if not delivery.line or delivery.line not in heads:
        return True
    head = heads[delivery.line]
    return head is not None and head.id == delivery.id


def _due_at(delivery: DeliveryDocument, due_at: Micros) -> Change[DeliveryDocument]:
    """Return the change that has a delivery which waits due then."""
    where = {"state": DeliveryState.PENDING, "due_at": delivery.due_at}
    return Change(kind=DeliveryDocument, id=delivery.id, where=where, set={"due_at": due_at})


def _after_try(
    delivery: DeliveryDocument, fields: Mapping[str, object]
) -> Change[DeliveryDocument]:
    """Return the change that notes what came of a try."""
    where = {"state": DeliveryState.PENDING, "attempts": delivery.attempts}
    return Change(kind=DeliveryDocument, id=delivery.id, where=where, set=fields)


def _place(delivery: DeliveryDocument) -> Place:
    url = delivery.opened().url
    try:
        host = urlsplit(url).netloc
    except ValueError:
        host = url
    return Place(delivery.user, delivery.job_id, host)


def is_lacking(error: BaseException) -> bool:
    """Return whether something failed because this process or machine lacks descriptors, memory, buffers or threads."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, RuntimeError):
        return "can't start new thread" in str(cause)
    return isinstance(cause, NoLookup | MemoryError) or getattr(cause, "errno", 0) in _LACKED


def reason_of(error: BaseException) -> str:
    """Return why a try failed, without what the error says of the address or the headers: a secret may stand there."""
    cause = getattr(error, "os_error", error)
    said = ""
    if isinstance(cause, socket.gaierror):
        said = cause.strerror or ""
    elif isinstance(cause, OSError) and cause.errno is not None:
        said = os.strerror(cause.errno)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def signed(id: str, timestamp: str, body: bytes, secret: str) -> dict[str, str]:
    """Return the headers by which a receiver can know a delivery, and check it where there is a secret.

    Names and signature are those of Standard Webhooks: base64 of HMAC-SHA256 over `id.timestamp.body`, with the
    secret's bytes, or those that follow `whsec_` in base64."""
    headers = {"webhook-id": id, "webhook-timestamp": timestamp}
    if secret:
        mac = hmac.new(_key(secret), f"{id}.{timestamp}.".encode(), hashlib.sha256)
        mac.update(body)
        headers["webhook-signature"] = "v1," + base64.b64encode(mac.digest()).decode()
    return headers


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return secret.encode()
