"""Deliveries of webhooks: stored before they are tried, retried with growing delays, shared among coordinators."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import random
import socket

import aiohttp
import structlog

from coordinator.store.port import Below, Change, Store
from coordinator.timers.ticking import Ticker
from shared.model.documents import SECOND, Delivery, Micros

log = structlog.get_logger(__name__)

EVERY = 0.25
"""Seconds between looks at what is due."""

LIMIT = 50
"""Deliveries under way at a time."""

FIRST_DELAY = 5.0
"""Seconds before the second try; each further one waits three times as long."""

GROWTH = 3.0
AGAIN = frozenset({408, 429})
"""Answers, besides 5xx, after which it is tried again."""


class Webhooks:
    """Delivers what is due. A delivery is claimed by moving its due time on, so that no two coordinators try it at
    once, and one that dies on the way has it tried again."""

    def __init__(self, store: Store, attempts: int, timeout: float) -> None:
        self._store = store
        self._attempts = attempts
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._ticker = Ticker("webhooks", EVERY, self._deliver_due)

    def start(self) -> None:
        """Begin to deliver."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        self._ticker.start()

    async def close(self) -> None:
        """End; what is under way is tried again by whoever is there."""
        await self._ticker.close()
        if self._session is not None:
            await self._session.close()

    async def _deliver_due(self) -> None:
        now = self._store.now()
        where = {"state": "PENDING", "due_at": Below(now + 1)}
        due = await self._store.find(Delivery, where, ("due_at",), limit=LIMIT)
        await asyncio.gather(*(self._claim_and_try(delivery, now) for delivery in due))

    async def _claim_and_try(self, delivery: Delivery, now: Micros) -> None:
        claimed = await self._store.change(
            Change(
                kind=Delivery,
                id=delivery.id,
                where={
                    "state": "PENDING",
                    "due_at": delivery.due_at,
                    "attempts": delivery.attempts,
                },
                set={
                    "attempts": delivery.attempts + 1,
                    "due_at": now
                    + int((self._timeout + self._delay(delivery.attempts + 1)) * SECOND),
                },
            )
        )
        if claimed is not None:
            await self._settle(claimed, *await self._try(claimed))

    def _delay(self, attempts: int) -> float:
        return FIRST_DELAY * GROWTH ** max(0, attempts - 1) * random.uniform(0.9, 1.1)

    async def _try(self, delivery: Delivery) -> tuple[bool, str | None]:
        """Return whether it is over, and the error, if there was one."""
        assert self._session is not None
        body = delivery.body.encode()
        timestamp = str(self._store.now() // SECOND)
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            **delivery.headers,
            **signed(delivery.id, timestamp, body, delivery.secret),
        }
        try:
            async with self._session.post(
                delivery.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return False, reason_of(error)
        if status < 300:
            return True, None
        return status < 500 and status not in AGAIN, f"the receiver answered {status}"

    async def _settle(self, delivery: Delivery, over: bool, error: str | None) -> None:
        fields: dict[str, object] = {"error": error}
        if error is None:
            fields["state"] = "DELIVERED"
        elif over or delivery.attempts >= self._attempts:
            fields["state"] = "FAILED"
            log.warning(
                "a webhook was not delivered",
                job=delivery.job_id,
                attempts=delivery.attempts,
                reason=error,
            )
        else:
            fields["due_at"] = self._store.now() + int(self._delay(delivery.attempts) * SECOND)
        where = {"state": "PENDING", "attempts": delivery.attempts}
        await self._store.change(Change(kind=Delivery, id=delivery.id, where=where, set=fields))


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
