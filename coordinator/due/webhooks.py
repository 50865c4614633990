"""Sends webhook deliveries: stored before they are sent, retried with growing delays, shared among coordinators."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
import structlog

from coordinator.due.fair_order import in_turn
from coordinator.due.webhook_places import DELIVERIES_AT_ONCE, Place, Places
from coordinator.store.port import Below, Change, Store
from shared.errors import ApplicationError
from shared.model.documents import MICROS_PER_SECOND, DeliveryDocument, Micros
from shared.model.states import DeliveryState
from shared.supervision import Loop, Tasks, waiting

log = structlog.get_logger(__name__)

_EVERY = 0.25
"""Seconds between looks at what is due."""

PAUSE = 0.05
"""Seconds between looks while more is due than may be under way."""

LOOKED_AT = 300
"""Due deliveries that one look reads, the longest due first."""

_FIRST_DELAY = 5.0
"""Seconds before the second try; each further one waits three times as long."""

GROWTH = 3.0
AGAIN = frozenset({408, 429})
"""Answers, besides 5xx, after which it is tried again."""


class WebhookSender:
    """Delivers what is due. A delivery is claimed by moving its due time on, so that no two coordinators try it at
    once, and one that dies on the way has it tried again."""

    def __init__(self, store: Store, attempts: int, timeout: float) -> None:
        self._store = store
        self._attempts = attempts
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._places = Places()
        self._trying = Tasks()
        self._done = asyncio.Event()
        self._loop = Loop("webhooks", self._deliver_due, every=_EVERY)

    def start(self) -> None:
        """Start delivering what is due, in the background."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(limit=DELIVERIES_AT_ONCE),
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
        where = {"state": DeliveryState.PENDING, "due_at": Below(now + 1)}
        without = ("body", "headers", "secret")
        due = await self._store.find(
            DeliveryDocument, where, ("due_at",), limit=LOOKED_AT, without=without
        )
        left: list[DeliveryDocument] = []
        for delivery in in_turn(due, _place):
            if delivery.id in self._places:
                continue
            place = _place(delivery)
            if self._places.has_room_for(place):
                self._begin(delivery, place)
            else:
                left.append(delivery)
        if not self._places.full:
            await self._put_behind(left, now)
        return bool(left) or len(due) == LOOKED_AT

    def _begin(self, delivery: DeliveryDocument, place: Place) -> None:
        self._places.take(delivery.id, place)
        self._trying.start(self._claim_and_try(delivery), f"webhook {delivery.id}")

    async def _put_behind(self, deliveries: Sequence[DeliveryDocument], now: Micros) -> None:
        before: Counter[str] = Counter()
        changes = []
        for delivery in deliveries:
            host = _place(delivery).host
            later = self._places.wait(host, before[host])
            before[host] += 1
            changes.append(
                Change(
                    kind=DeliveryDocument,
                    id=delivery.id,
                    where={"state": DeliveryState.PENDING, "due_at": delivery.due_at},
                    set={"due_at": now + int(later * MICROS_PER_SECOND)},
                )
            )
        if changes:
            await self._store.change_many(changes)

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
            await self._settle(claimed, *await self._try(claimed))

    def _delay(self, attempts: int) -> float:
        return _FIRST_DELAY * GROWTH ** max(0, attempts - 1) * random.uniform(0.9, 1.1)

    async def _try(self, delivery: DeliveryDocument) -> tuple[bool, str | None]:
        """Return whether it is over, and the error, if there was one."""
        assert self._session is not None
        body = delivery.body.encode()
        timestamp = str(self._store.now() // MICROS_PER_SECOND)
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            **delivery.headers,
            **signed(delivery.id, timestamp, body, delivery.secret),
        }
        began, timed_out = time.monotonic(), False
        try:
            async with self._session.post(
                delivery.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            timed_out = isinstance(error, TimeoutError)
            return False, reason_of(error)
        finally:
            seconds = time.monotonic() - began
            self._places.tried(_place(delivery).host, seconds, timed_out=timed_out)
        if status < 300:
            return True, None
        return status < 500 and status not in AGAIN, f"the receiver answered {status}"

    async def _settle(self, delivery: DeliveryDocument, over: bool, error: str | None) -> None:
        fields: dict[str, object] = {"error": error}
        if error is None:
            fields["state"] = DeliveryState.DELIVERED
        elif over or delivery.attempts >= self._attempts:
            fields["state"] = DeliveryState.FAILED
            log.warning(
                "a webhook was not delivered",
                job=delivery.job_id,
                attempts=delivery.attempts,
                reason=error,
            )
        else:
            fields["due_at"] = self._store.now() + int(
                self._delay(delivery.attempts) * MICROS_PER_SECOND
            )
        where = {"state": DeliveryState.PENDING, "attempts": delivery.attempts}
        await self._store.change(
            Change(kind=DeliveryDocument, id=delivery.id, where=where, set=fields)
        )


def _place(delivery: DeliveryDocument) -> Place:
    try:
        host = urlsplit(delivery.url).netloc
    except ValueError:
        host = delivery.url
    return Place(delivery.user, delivery.job_id, host)


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
        mac = hmac.new(_key(secret), f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = "v1," + base64.b64encode(mac).decode()
    return headers


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return secret.encode()
